//! What a command answers, on standard output; and what it says beside that, on standard error.
//! Whoever reads may stop: `tidegate config show | head` closes the pipe after ten lines, which is no failure and must not
//! end in a panic, as `println!` would have it.

use std::io::{self, ErrorKind, Write as _};

/// Prints the answer, which ends its own lines.
///
/// # Errors
/// It could not be written, such as to a full disk. That nobody reads any more is none.
pub fn answer(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("standard output cannot be written to: {error}"))
        }
        _ => Ok(()),
    }
}

/// Says something to whoever watches, if anybody does.
pub fn remark(text: &str) {
    // Nobody is left to hear that nobody hears.
    let _ = writeln!(io::stderr(), "{text}");
}
