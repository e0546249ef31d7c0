//! What becomes of a guest whose request head has arrived: refused by name, or made a connection.
//! Decides only; accepting, waiting and deadlines are the lobby's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use tidegate_protocol::handshake::{self, Parsed, Policy, Refusal, Upgrade};

use super::{Lobby, RETRY_AFTER_S};
use crate::identity::Identity;
use crate::node::Node;

impl Lobby {
    /// Decides over a head: gives the socket back when it is unfinished.
    pub(super) fn consider(&mut self, node: &Node, fd: OwnedFd, head: &[u8], is_seated: bool) -> Option<OwnedFd> {
        let policy = Policy {
            paths: &["/ws", "/connect"],
            origins: &node.origins,
            head_bytes_max: node.config.handshake.head_bytes,
            deflate: node.config.deflate.level > 0,
        };
        match handshake::parse(head, &policy) {
            Ok(Parsed::Incomplete) => return Some(fd),
            Ok(Parsed::Upgrade(upgrade, used)) => {
                if let Err((fd, refusal)) = self.admit(node, fd, &upgrade, &head[used..], is_seated) {
                    self.refuse(node, &fd, refusal);
                }
            }
            Err(refusal) => self.refuse(node, &fd, refusal),
        }
        None
    }

    fn admit(
        &mut self,
        node: &Node,
        fd: OwnedFd,
        upgrade: &Upgrade<'_>,
        early: &[u8],
        is_seated: bool,
    ) -> Result<(), (OwnedFd, Refusal)> {
        if !node.is_accepting() {
            return Err((fd, Refusal::Draining { retry_after_s: RETRY_AFTER_S }));
        }
        let identity = match Identity::claimed(upgrade.query, &node.platforms) {
            Ok(identity) => identity,
            Err(refusal) => return Err((fd, refusal)),
        };
        if identity.user.as_deref().is_some_and(|user| node.blocks.is_barred(user)) {
            return Err((fd, Refusal::Blocked));
        }
        if is_seated {
            // This set must let go of the socket before a bucket's takes it.
            let _ = epoll::delete(&self.epoll, fd.as_fd());
        }
        self.response.clear();
        handshake::accept_response(upgrade, &mut self.response);
        node.open(fd, identity, upgrade.deflate, &mut self.response, early);
        Ok(())
    }
}
