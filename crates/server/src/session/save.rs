//! `BGSAVE`, `SAVE`, `LASTSAVE`: checkpoints in the data folder.

use super::Session;
use kvorum_cluster::{Node, Result};
use kvorum_model::{Args, ErrorReply, Reply};

impl Session {
    /// `BGSAVE [SCHEDULE]`. There is never another kind of job to wait for, so it is begun at once with `SCHEDULE` too.
    pub(super) fn background_save(&self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        match args.from(1) {
            [] => {}
            [option] if option.eq_ignore_ascii_case(b"SCHEDULE") => {}
            _ => return Err(ErrorReply::syntax()),
        }
        begun(self.shared.node.save_in_background())?;
        Ok(Reply::Simple("Background saving started".into()))
    }

    /// `LASTSAVE`.
    pub(super) fn last_save(&self) -> Reply {
        let seconds = self.shared.node.stats().saves.last_ms / 1000;
        Reply::Integer(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

/// `SAVE`: waits for the checkpoint, on a thread that may.
pub(super) async fn save(node: Node) -> Reply {
    let saved = tokio::task::spawn_blocking(move || node.save()).await;
    match saved.map(begun) {
        Ok(Ok(())) => Reply::Ok,
        Ok(Err(error)) => Reply::Error(error),
        Err(error) => Reply::Error(ErrorReply::new(format!("ERR the checkpoint was not finished: {error}"))),
    }
}

/// What the answer of the node means.
fn begun(save: Result<bool>) -> Result<(), ErrorReply> {
    match save {
        Ok(true) => Ok(()),
        Ok(false) => Err(ErrorReply::new("ERR Background save already in progress")),
        Err(error) => Err(ErrorReply::new(error.resp())),
    }
}
