//! Several futures at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future that may go to another thread.
pub(crate) type Boxed<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// Runs all of them; answers what they answer, in their order. They are few: as many as shards, or as commands run at the same time.
pub(crate) async fn join<T>(all: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut running: Vec<(Option<Boxed<'_, T>>, Option<T>)> =
        all.into_iter().map(|one| (Some(one), None)).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for (future, answer) in &mut running {
            let Some(running) = future else { continue };
            match running.as_mut().poll(context) {
                Poll::Ready(found) => (*future, *answer) = (None, Some(found)),
                Poll::Pending => is_done = false,
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_whoever_is_done_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (first, waits) = tokio::sync::oneshot::channel();
        let all: Vec<Boxed<'_, u8>> = vec![
            Box::pin(async { waits.await.unwrap() }),
            Box::pin(async {
                first.send(1).unwrap();
                2
            }),
            Box::pin(async { 3 }),
        ];
        assert_eq!(runtime.block_on(join(all)), [1, 2, 3]);
        assert!(runtime.block_on(join(Vec::<Boxed<'_, u8>>::new())).is_empty());
    }
}
