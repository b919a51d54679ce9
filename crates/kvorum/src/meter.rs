//! How far a long job is: a bar on a terminal, nothing otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvorum_cluster::backup::Progress;

/// A bar on standard error.
pub(crate) struct Meter(ProgressBar);

impl Meter {
    /// A bar that is drawn once something was done.
    pub(crate) fn new(what: &'static str) -> Meter {
        // Draws on a terminal only; hidden otherwise.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{prefix} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Meter(bar.with_prefix(what))
    }

    /// Shows where it is.
    pub(crate) fn show(&self, done: Progress) {
        self.show_bytes(done.bytes, done.of_bytes);
    }

    /// Shows how many bytes of how many are done.
    pub(crate) fn show_bytes(&self, bytes: u64, of_bytes: u64) {
        self.0.set_length(of_bytes);
        self.0.set_position(bytes);
    }

    /// Takes the bar away: what comes next says how it ended.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
