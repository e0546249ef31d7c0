//! The examples below each `--help`: what to type for the usual tasks, as pasted.
//! Text only, kept apart from the flags so that both stay readable. No line passes 80 columns: the help is wrapped to the terminal,
//! and an example that was wrapped cannot be pasted.

pub const ALL: &str = "\
Start here:
  tidegate serve               clients on 127.0.0.1:8000, API and page on :8001
  tidegate serve --demo        the same, with 10,000 flights to watch
  tidegate doctor --for 1m     can this machine hold a million connections?

Push a message to everybody:
  curl http://127.0.0.1:8001/v1/push -H 'content-type: application/json' \\
       -d '{\"to\":{\"all\":true},\"messages\":[{\"hello\":\"world\"}]}'

Configuration, first wins: flags, --set key=value, TIDEGATE_* environment,
--config file, defaults.
Exit codes: 0 done, 1 failed, 2 usage or configuration.";

pub const SERVE: &str = "\
Examples:
  tidegate serve
  tidegate serve --demo --speed 60                 an hour of flights a second
  tidegate serve --set gateway.merge.max_ms=200    shorter windows
  tidegate serve --listen 0.0.0.0:8000 --set auth.allow_open=true

SIGTERM or Ctrl-C drains: no new connections, closes spread over
gateway.drain.spread_ms (on loopback at once), exit 0. A second signal ends the
process at once.";

pub const GATEWAY: &str = "\
Examples:
  tidegate gateway
  TIDEGATE_GATEWAY__BACKPLANE_SECRET_FILE=/run/secrets/backplane \\
    tidegate gateway --listen 0.0.0.0:8000 --backplane 10.0.0.5:8002 \\
    --set auth.allow_open=true
  tidegate gateway --echo                          for Autobahn|Testsuite

Logic nodes dial the backplane; a gateway opens no connection of its
own, and lets clients in once a logic node is linked.";

pub const LOGIC: &str = "\
Examples:
  tidegate logic --gateway http://127.0.0.1:8002
  tidegate logic --gateway http://10.0.0.5:8002 --gateway http://10.0.0.6:8002 \\
    -c /etc/tidegate/tidegate.toml";

pub const DOCTOR: &str = "\
Examples:
  tidegate doctor                                  for 10,000 connections
  tidegate doctor --for 1m
  tidegate doctor --for 100k --json |
    jq '.checks[] | select(.verdict != \"ok\") | .fix'

Exit codes: 0 all is well, 1 there are warnings, 2 N connections will not fit.
Changes nothing.";

pub const AGENT: &str = "\
Examples:
  tidegate agent --url ws://127.0.0.1:8000/ws --user robot-7 --allow ping,info
  tidegate agent --url wss://push.example.com/ws \\
    --token-file /etc/tidegate/agent.token \\
    --allow ping,info,exec:/etc/tidegate/allow.toml

Ask it:
  curl http://127.0.0.1:8001/v1/agents/robot-7/command \\
       -H 'content-type: application/json' -d '{\"command\":\"info\"}'

The file of exec names programs; nothing else is run, no shell is involved, and
the wire adds no argument that is not listed:
  [programs.uptime]             # command \"exec:uptime\"
  argv = [\"/usr/bin/uptime\"]  # absolute path, fixed arguments
  args = [\"-p\", \"-s\"]         # what data {\"args\": [\"-p\"]} may add; else nothing
  timeout_ms = 5000             # then it is killed; else 10000, at most 120000
  output_bytes = 4096           # kept of each output; else 16384, at most 24576

It reconnects by itself, and answers a command that comes again without doing
it again.
Exit codes: 0 after SIGTERM or Ctrl-C, 1 refused for good (token, kicked,
blocked), 2 usage.";

pub const CONFIG: &str = "\
Examples:
  tidegate config show                    every key, its value and its source
  tidegate config show > tidegate.toml    a file to start from
  TIDEGATE_GATEWAY__MERGE__MIN_MS=50 tidegate config show --json
  tidegate config check -c /etc/tidegate/tidegate.toml";

pub const KEYS: &str = "\
Examples:
  tidegate keys create --id billing --scopes push,read --expires 90d
  tidegate keys create --id chat --scopes push --room 'chat:*' --user '*'
  tidegate keys create --id ci --scopes read --json |
    jq -r .key > /run/secrets/ci.key
  tidegate keys inspect -c /etc/tidegate/tidegate.toml < /run/secrets/ci.key

To change a key: create another with the same id, add its entry beside the old
one, reload, hand the key over, and remove the old entry when nobody uses it any
more.";

pub const TOKEN: &str = "\
Examples:
  tidegate token mint -c tidegate.toml --sub alice --plat web \\
    --rooms 'chat:*,user:{sub}:*' --speak 'chat:*'
  tidegate token mint --sub robot --exp 90d \\
    --key-file ed25519.pem --alg EdDSA --kid 2027
  tidegate token mint -c tidegate.toml --sub alice --attr lang=de |
    tidegate token inspect -c tidegate.toml

Keys come from the configuration, its TIDEGATE_* variables included, or from a
file; never from the command line. inspect verifies with the code of the
gateway. Exit code 0: accepted, 1: refused, with the reason that a client would
get.";
