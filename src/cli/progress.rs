//! Progress of long work, for people who watch: on standard error, and only where that is a terminal.
//!
//! Must not know: what is counted.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar towards `total`; hidden where nobody watches, and where it would run through results on the same screen.
pub(super) fn bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {eta}");
    ProgressBar::new(total).with_style(style.expect("the template is a constant"))
}
