//! An outlet that knows of each message what became of it: what is taken is not sent again, what nobody knows is.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::upstream::outlet::{Fate, Fault, Line, Outlet, Peer, Said, Sending, Sent};

type Answer = fn(usize, u64) -> Fate;

/// Remembers the numbers of each sending; a number's fate follows from it and the sending's place.
struct Fake {
    got: Arc<Mutex<Vec<Vec<u64>>>>,
    answer: Answer,
}

impl Outlet for Fake {
    fn send<'a>(&'a self, lines: &'a [Line<'a>], _until: tokio::time::Instant) -> Sending<'a> {
        let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
        let mut got = self.got.lock();
        let fates = numbers.iter().map(|&number| (self.answer)(got.len(), number)).collect();
        got.push(numbers);
        Box::pin(async { Sent { fates, after: None, said: Said::Unread } })
    }

    fn peers(&self) -> Vec<Peer> {
        vec![Peer { address: "fake".into() }]
    }
}

fn fault() -> Fault {
    Fault { label: "status", words: "not now".into(), is_silence: false }
}

/// What an outlet with these answers gets of five messages that wait together, and how many became dead letters.
async fn five(answer: Answer) -> (Vec<Vec<u64>>, u64) {
    let bed = Bed::new("http://127.0.0.1/", |sink| sink.lanes = 1);
    let got: Arc<Mutex<Vec<Vec<u64>>>> = Arc::default();
    let outlet = Box::new(Fake { got: Arc::clone(&got), answer });
    let (sink, idle) = Sink::open(&bed.config.sinks[0], &bed.config.spool, 64, Arc::default(), outlet).expect("opens");
    for n in 0..5 {
        let item = message("alice", n);
        sink.submit(item.shard(), item.line().expect("a line"), None);
    }
    let (leave, mut tasks) = (watch::Sender::new(false), JoinSet::new());
    idle.run(&(Arc::clone(&bed.noted) as _), &leave.subscribe(), &mut tasks);
    until("an empty spool", || sink.standing().books.waiting.messages == 0).await;
    leave.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the tasks end");
    let got = got.lock().clone();
    (got, sink.standing().books.dead.messages)
}

#[tokio::test]
async fn what_is_taken_behind_a_failure_is_not_sent_again() {
    let (got, dead) = five(|place, number| match (place, number) {
        (0, 2) => Fate::Later(fault()),
        _ => Fate::Taken,
    })
    .await;

    assert_eq!(got, [vec![1, 2, 3, 4, 5], vec![2]]);
    assert_eq!(dead, 0);
}

#[tokio::test]
async fn an_unknown_fate_is_repeated_with_the_same_messages() {
    let (got, _) = five(|place, _| if place == 0 { Fate::Unknown(fault()) } else { Fate::Taken }).await;

    assert_eq!(got, [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]);
}

#[tokio::test]
async fn of_many_the_one_that_is_never_taken_is_given_up_at_once() {
    let (got, dead) = five(|_, number| if number == 3 { Fate::Never(fault()) } else { Fate::Taken }).await;

    assert_eq!(got, [[1, 2, 3, 4, 5]]);
    assert_eq!(dead, 1);
}
