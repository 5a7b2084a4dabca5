//! Progress of long work, for people who watch: on standard error, and only where that is a terminal.
//!
//! Must not know: what is counted.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar towards `total`, while results are printed; hidden where it would run through them on the same screen.
pub(super) fn bar(total: u64) -> ProgressBar {
    if io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    bar_before_results(total)
}

/// A bar towards `total`, of work that prints nothing before it is done.
pub(super) fn bar_before_results(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    watched(bar, "{bar:40} {human_pos}/{human_len} {eta}")
}

/// Counts towards nobody knows what, in work that prints nothing before it is done.
pub(super) fn counter(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(what);
    watched(bar, "{spinner} {human_pos} {msg} {elapsed}")
}

/// Where nobody watches, it counts all the same.
fn watched(bar: ProgressBar, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.expect("the template is a constant"))
}
