//! Events: all that happened, in the order of the log, from an index on, and on as it happens.
//!
//! A stream reads what is applied here, page by page, and waits where there is no more yet. So it has no
//! gap, wherever it is read, and whoever goes on at another controller with the `next` that it was told last
//! misses nothing and sees nothing twice.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status};
use wire::status::{Code, Failure};
use wire::v1;

use super::{Deadline, Gateway, failure};
use crate::limit;

pub type Replies = Pin<Box<dyn Stream<Item = Result<v1::EventsReply, Status>> + Send>>;

struct Reader {
    gateway: Gateway,
    /// The next entry whose events were not told.
    next: u64,
    follow: bool,
    /// Where a stream that does not follow ends.
    end: u64,
    told: bool,
    over: bool,
}

impl Gateway {
    pub(super) async fn events_from(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Replies>, Failure> {
        self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let v1::EventsRequest { since, until_now } = *request.get_ref();
        let (state, position) = self.read(deadline).await?;
        let end = position.log_index + 1;
        let next = since.unwrap_or(end);
        if next < state.archived_from() {
            return Err(compacted(next, state.archived_from()));
        }
        let reader = Reader {
            gateway: self.clone(),
            next,
            follow: !until_now,
            end,
            told: false,
            over: false,
        };
        let replies = futures::stream::unfold(reader, |mut reader| async move {
            let reply = reader.step().await?;
            Some((reply.map_err(Status::from), reader))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

impl Reader {
    async fn step(&mut self) -> Option<Result<v1::EventsReply, Failure>> {
        if self.over || (!self.follow && self.told && self.next >= self.end) {
            return None;
        }
        let reply = self.page().await;
        self.over = reply.is_err();
        Some(reply)
    }

    /// The next events. The first answer comes at once, so that a reader knows where it stands.
    async fn page(&mut self) -> Result<v1::EventsReply, Failure> {
        let cluster = self.gateway.0.cluster.clone();
        loop {
            if self.told {
                tokio::select! {
                    reached = cluster.reached(self.next) => {
                        reached.map_err(|error| failure::of_raft(&error))?;
                    }
                    () = self.gateway.0.stopping.cancelled() => return Err(failure::stopping()),
                }
            }
            let page = cluster.events(self.next, limit::EVENTS_PAGE).await;
            let page = page.map_err(|error| failure::of_raft(&error))?;
            let Some(page) = page else {
                return Err(compacted(self.next, cluster.view().archived_from()));
            };
            let (entries, next) = fitting(page);
            self.next = next.max(self.next);
            if entries.is_empty() && self.told && self.follow {
                continue;
            }
            self.told = true;
            return Ok(v1::EventsReply {
                events: entries,
                next: self.next,
            });
        }
    }
}

/// As many entries as fit into a message, one at least, and where to go on.
fn fitting(page: raft::EventsPage) -> (Vec<v1::Event>, u64) {
    let (mut events, mut bytes) = (Vec::new(), 0);
    for entry in &page.entries {
        let more: Vec<_> = wire_events(entry).collect();
        bytes += more.iter().map(size).sum::<usize>();
        if bytes > limit::EVENTS_BYTES && !events.is_empty() {
            return (events, entry.index);
        }
        events.extend(more);
    }
    (events, page.next)
}

/// Bytes of an event in a message, at most.
fn size(event: &v1::Event) -> usize {
    const NUMBERS: usize = 72;
    NUMBERS + event.r#type.len() + event.agent.len() + event.reason.len()
}

fn wire_events(entry: &raft::EventsAt) -> impl Iterator<Item = v1::Event> {
    let (index, wall) = (entry.index, entry.record.wall);
    (0..)
        .zip(&entry.record.events)
        .map(move |(n, event)| wire::convert::event(event, (index, n), wall))
}

fn compacted(asked: u64, oldest: u64) -> Failure {
    let text = format!(
        "events from index {asked} on are not kept any more: the oldest kept index is {oldest}; \
         ask with --since {oldest}"
    );
    Failure::new(Code::Compacted, text)
}
