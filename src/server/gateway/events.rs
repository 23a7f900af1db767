//! Events: all that happened, in the order of the log, from an index on, and on as it happens.
//!
//! A stream reads what is applied here, page by page, and waits where there is no more yet. So it has no
//! gap, wherever it is read, and whoever goes on at another controller with the `next` that it was told last
//! misses nothing and sees nothing twice.

use std::collections::VecDeque;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use wire::status::{Code, Failure};
use wire::v1;

use super::{Deadline, Gateway, failure};
use crate::limit;

pub type Replies = Pin<Box<dyn Stream<Item = Result<v1::EventsReply, Status>> + Send>>;

struct Reader {
    gateway: Gateway,
    /// The next entry whose events were not read.
    next: u64,
    /// Read, and not told yet.
    ready: VecDeque<v1::EventsReply>,
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
        let mut reader = Reader {
            gateway: self.clone(),
            next,
            ready: VecDeque::new(),
            follow: !until_now,
            end,
            told: false,
            over: false,
        };
        // Where this controller can't answer, the call fails, and the caller asks another one.
        let first = reader.page().await?;
        let replies = futures::stream::unfold(reader, |mut reader| async move {
            let reply = reader.step().await?;
            Some((reply.map_err(Status::from), reader))
        });
        let first = futures::stream::once(std::future::ready(Ok(first)));
        Ok(Response::new(Box::pin(first.chain(replies))))
    }
}

impl Reader {
    async fn step(&mut self) -> Option<Result<v1::EventsReply, Failure>> {
        let at_end = self.told && self.next >= self.end && self.ready.is_empty();
        if self.over || (!self.follow && at_end) {
            return None;
        }
        let reply = self.page().await;
        self.over = reply.is_err();
        Some(reply)
    }

    /// The next events. The first answer comes at once, so that a reader knows where it stands.
    async fn page(&mut self) -> Result<v1::EventsReply, Failure> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(ready);
        }
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
            self.next = page.next.max(self.next);
            self.ready.extend(messages(&page));
            if self.ready.is_empty() && self.told && self.follow {
                continue;
            }
            self.told = true;
            let nothing = v1::EventsReply {
                events: Vec::new(),
                next: self.next,
            };
            return Ok(self.ready.pop_front().unwrap_or(nothing));
        }
    }
}

/// A page in messages of a bounded size. One entry may need several: then they say to go on with that same entry,
/// until the last of them.
fn messages(page: &raft::EventsPage) -> Vec<v1::EventsReply> {
    let mut all = Vec::new();
    let (mut events, mut bytes) = (Vec::new(), 0);
    for event in page.entries.iter().flat_map(wire_events) {
        bytes += size(&event);
        if bytes > limit::EVENTS_BYTES && !events.is_empty() {
            let next = event.index;
            let events = std::mem::take(&mut events);
            all.push(v1::EventsReply { events, next });
            bytes = size(&event);
        }
        events.push(event);
    }
    if !events.is_empty() {
        let next = page.next;
        all.push(v1::EventsReply { events, next });
    }
    all
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

#[cfg(test)]
mod tests {
    use model::{Event, EventsRecord, TaskId, Timestamp};
    use raft::{EventsAt, EventsPage};

    use super::*;

    fn entry(index: u64, events: usize) -> EventsAt {
        let queued = Event::TaskQueued { task: TaskId(1) };
        let record = EventsRecord {
            wall: Timestamp(1),
            events: vec![queued; events],
        };
        EventsAt { index, record }
    }

    #[test]
    fn an_entry_with_more_events_than_fit_is_told_in_parts_and_nothing_is_left_out() {
        let page = EventsPage {
            entries: vec![entry(5, 10), entry(7, 100_000), entry(8, 1)],
            next: 9,
        };
        let messages = messages(&page);
        assert!(messages.len() > 5);
        for message in &messages {
            let bytes: usize = message.events.iter().map(size).sum();
            assert!(bytes <= limit::EVENTS_BYTES);
        }
        let (last, others) = messages.split_last().unwrap();
        assert_eq!(last.next, 9);
        assert!(others.iter().all(|message| message.next == 7));
        let told: Vec<_> = messages
            .iter()
            .flat_map(|message| &message.events)
            .collect();
        assert_eq!(told.len(), 100_011);
        assert!(told.is_sorted_by_key(|event| (event.index, event.n)));
    }
}
