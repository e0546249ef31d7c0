//! Commands to several gateways, side by side.

use tidegate_protocol::records::{CommandReply, CommandRequest};
use tokio::task::JoinSet;

use super::interest::GatewaySet;
use super::{Failure, Fleet};

/// What became of a command.
#[derive(Default)]
pub struct Told {
    /// Sum over those who were told.
    pub reply: CommandReply,
    /// How many were told.
    pub sent: usize,
    /// Those who were not, and why.
    pub failed: Vec<(String, Failure)>,
}

impl Fleet {
    /// Tells gateways to do something.
    pub async fn tell(&self, set: GatewaySet, request: &CommandRequest) -> Told {
        let deadline = self.request_deadline();
        let mut asked = JoinSet::new();
        for link in self.links_of(set) {
            let request = request.clone();
            asked.spawn(async move {
                let reply = link.command(&request, deadline).await;
                (link.name.clone(), reply)
            });
        }
        let mut told = Told::default();
        for (gateway, reply) in asked.join_all().await {
            match reply {
                Ok(reply) => {
                    told.reply.closed += reply.closed;
                    told.reply.moved += reply.moved;
                    told.reply.unmoved += reply.unmoved;
                    told.reply.refused += reply.refused;
                    told.reply.stronger += reply.stronger;
                    told.sent += 1;
                }
                Err(error) => told.failed.push((gateway, error.failure())),
            }
        }
        told
    }
}
