//! Writes the bytes of one push in the form its server takes (`dialect::form`).
//! A file of its own because the publisher is about time: it sends what this gives. It opens no socket.

use std::io::Write as _;
use std::net::SocketAddr;

use super::publisher::Options;
use super::schedule::Due;
use crate::dialect::form::Form;
use crate::message::Stamp;

/// Writes requests; keeps its buffers.
#[derive(Debug, Default)]
pub struct Composer {
    body: Vec<u8>,
    request: Vec<u8>,
}

impl Composer {
    /// The bytes of one push.
    pub fn compose(&mut self, options: &Options, due: Due) -> &[u8] {
        self.body.clear();
        self.request.clear();
        match options.form {
            Form::Push => self.push(options, due),
            Form::Post(path) => {
                write_message(options, due, due.first, &mut self.body);
                self.post(options.address, path, "");
            }
            Form::Stream(stream) => {
                for sequence in due.first..due.first + due.messages {
                    self.body.clear();
                    write_message(options, due, sequence, &mut self.body);
                    stream.message(&self.body, &mut self.request);
                }
            }
        }
        &self.request
    }

    fn push(&mut self, options: &Options, due: Due) {
        let to = match options.to.split_once(':') {
            Some((kind, name)) => serde_json::json!({ kind: name }),
            None => serde_json::json!({ "all": true }),
        };
        write!(self.body, r#"{{"to":{to},"messages":["#).expect("a Vec takes everything");
        for sequence in due.first..due.first + due.messages {
            if sequence > due.first {
                self.body.push(b',');
            }
            write_message(options, due, sequence, &mut self.body);
        }
        self.body.extend_from_slice(b"]}");
        let key = options.key.as_ref();
        let authorization = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        self.post(options.address, "/v1/push", &authorization);
    }

    fn post(&mut self, address: SocketAddr, path: &str, headers: &str) {
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {}\r\n\r\n",
            self.body.len()
        )
        .expect("a Vec takes everything");
        self.request.extend_from_slice(&self.body);
    }
}

fn write_message(options: &Options, due: Due, sequence: u32, out: &mut Vec<u8>) {
    let stamp = Stamp { publisher: options.publisher, sequence, intended_ns: due.at_ns };
    if options.rows { stamp.write_rows(out, options.size) } else { stamp.write(out, options.size) }
}
