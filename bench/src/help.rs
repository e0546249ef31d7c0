//! What stands below each `bench … --help`: what to type for the usual tasks, as pasted.
//! Text only. Invariant, held by a test: no line is wider than a terminal of 80 columns, so that none is broken inside an example.

pub const LIMIT: &str = "\
Examples:
  tidegate bench limit
  tidegate bench limit --connections 2000 --rounds 5 --cadence paced

What it prints is the floor: no server that calls send once a client can be
cheaper on this machine. `bench run delivery` compares the gateway with it.";

pub const SWARM: &str = "\
Examples, with `tidegate serve` in another terminal:
  tidegate bench swarm --connections 2000 --rooms lobby --hold 1m
  tidegate bench swarm --user-pattern 'user-{i}' --room-pattern 'team-{i%10}'
  tidegate bench swarm --handshakes 15s

Only messages of `bench publish` can be checked; others are counted as odd.
Exit codes: 0 all is well, 1 something was lost, doubled or out of order.";

pub const PUBLISH: &str = "\
Examples, with `tidegate serve` and `bench swarm --rooms lobby` elsewhere:
  tidegate bench publish --rate 1000 --duration 30s
  tidegate bench publish --to room:lobby --size 1024 --burst 50
  tidegate bench publish --count 1 --key \"$TIDEGATE_KEY\"

A message is due at its time whether or not the one before was answered, so a
slow server shows as latency and not as a lower rate.";

pub const REPORT: &str = "\
Examples:
  tidegate bench run delivery --json delivery.json
  tidegate bench run memory --json memory.json
  tidegate bench report delivery.json memory.json --out figures.html";

pub const PEERS: &str = "\
Examples:
  tidegate bench peers --brief
  tidegate bench peers --only tidegate,nchan --json peers.json
  tidegate bench report peers.json --out peers.html";

pub const RUN: &str = "\
Examples:
  tidegate bench run broadcast
  tidegate bench run idle --duration 10m
  tidegate bench run memory --json memory.json --strict
  tidegate bench run merged --connections 2000 --verbose

It starts a server of its own, on free ports, and ends it. Most take about a
minute. The first line says how many bounds are met; stderr says what it is at.

The clients are on this machine too and take their share of its cores: leave
it alone meanwhile, and use a release build.
Exit codes: 0 sound, 1 something was lost, doubled or out of order, 2 a bound
was missed and --strict was given.";

pub const MILLION: &str = "\
Examples:
  tidegate bench million --for 40k
  tidegate bench million --bare --json million.json
  tidegate bench million --hold 10m

The first takes some seconds and 500 MB; the second holds both ends of a
million, and bare senders beside it, in 13 GB. Ctrl-C takes all down in order.

Needs a release build, memory for both ends (it says how much, and refuses when
there is less), and the kernel settings of `tuning/apply` from about 300,000 on.
Works within any open-files limit: 20,000 make 53 gateways of a million.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal_and_every_command_has_an_example() {
        for text in [LIMIT, SWARM, PUBLISH, REPORT, PEERS, RUN, MILLION] {
            assert!(text.starts_with("Examples") && text.contains("\n  tidegate bench "), "{text}");
            let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{wide:#?}");
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for text in [LIMIT, SWARM, PUBLISH, REPORT, PEERS, RUN, MILLION] {
            for line in text.lines().filter_map(|line| line.strip_prefix("  tidegate bench ")) {
                let words = line.split(' ').map(|word| word.trim_matches(['\'', '"']));

                let parsed = crate::command().try_get_matches_from(std::iter::once("bench").chain(words));

                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
    }
}
