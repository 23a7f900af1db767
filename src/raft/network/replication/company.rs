//! Requests that carry nothing but a commit wait a moment for one that carries entries too.
//!
//! Once a majority has an entry, openraft tells each follower so in a request of its own. Under load the
//! next entry follows at once and says the same, so the lonely request costs both sides a message, a wake-up
//! and an answer for nothing. It is left out then: openraft takes an answer for all requests up to the log id
//! in it. Where no entry comes, followers apply later by [`PATIENCE`], which no promise is about.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::AsyncRuntime;
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, timeout_at};

use crate::consensus::Types;

/// About the time between two entries of one client that waits for each: it adds little to a read on a
/// follower, and a follower is rarely told alone.
const PATIENCE: Duration = Duration::from_millis(2);

pub fn in_company<R, S>(
    requests: S,
) -> impl Stream<Item = AppendEntriesRequest<Types<R>>> + Send + 'static
where
    R: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Types<R>>> + Send + Unpin + 'static,
{
    // Fused, because after the last request it is asked once more.
    stream::unfold(requests.fuse(), |mut requests| async move {
        let mut request = requests.next().await?;
        let patience = Instant::now() + PATIENCE;
        while request.entries.is_empty()
            && let Ok(Some(next)) = timeout_at(patience, requests.next()).await
        {
            request = next;
        }
        Some((request, requests))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::EntryPayload;
    use openraft_rt_tokio::TokioRuntime;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::consensus::{Entry, Vote, log_id};

    type Request = AppendEntriesRequest<Types<TokioRuntime>>;

    fn commit(index: u64) -> Request {
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(1, index)),
            entries: Vec::new(),
            leader_commit: Some(log_id(1, index)),
        }
    }

    fn entry(index: u64) -> Request {
        let entry = Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Blank,
        };
        Request {
            entries: vec![entry],
            ..commit(index - 1)
        }
    }

    async fn sent(requests: impl IntoIterator<Item = Request>) -> Vec<(usize, Option<u64>)> {
        let requests: Vec<_> = requests.into_iter().collect();
        let sent = in_company::<TokioRuntime, _>(stream::iter(requests));
        sent.map(|it| (it.entries.len(), it.leader_commit.map(|at| at.index)))
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_commit_rides_with_the_entry_behind_it() {
        assert_eq!(
            sent([entry(1), commit(1), entry(2)]).await,
            [(1, Some(0)), (1, Some(1))]
        );
        assert_eq!(sent([commit(1), commit(2), entry(3)]).await, [(1, Some(2))]);
    }

    #[tokio::test]
    async fn the_last_commit_of_a_stream_is_sent() {
        assert_eq!(
            sent([entry(1), commit(1)]).await,
            [(1, Some(0)), (0, Some(1))]
        );
    }

    #[tokio::test]
    async fn a_commit_that_nothing_follows_is_sent_by_itself() {
        let (requests, waiting) = mpsc::unbounded_channel();
        let mut sent = Box::pin(in_company::<TokioRuntime, _>(UnboundedReceiverStream::new(
            waiting,
        )));
        requests.send(commit(1)).unwrap();
        let limit = Duration::from_secs(30);
        let first = tokio::time::timeout(limit, sent.next()).await.unwrap();
        assert!(first.unwrap().entries.is_empty());
    }
}
