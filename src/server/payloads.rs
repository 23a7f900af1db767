//! What is too large for the log: taken out of specs and reports before they are proposed, and put back into what
//! people are shown.

use std::sync::Arc;

use bytes::Bytes;
use model::{BlobRef, Command, End, Held, Outcome, StateVersion, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wire::status::Failure;
use wire::v1;

use crate::controller::Controller;
use crate::dispatcher::Signal;
use crate::gateway::failure;
use crate::limit;
use crate::sessions::{Ended, Next, Session, Wanted};

/// A blob, with its bytes where this controller has just made it.
type Payload = (BlobRef, Option<Bytes>);

/// Tells the dispatcher what is not here, so that tasks that need it wait.
pub async fn tell_missing(controller: Arc<Controller>, halt: CancellationToken) {
    let mut missing = controller.cluster.missing_blobs();
    missing.mark_changed();
    while let Some(Ok(())) = halt.run_until_cancelled(missing.changed()).await {
        let lacks = missing.borrow_and_update().clone();
        let lacks = Signal::Input(dispatch::Input::Lacks(lacks));
        controller.inputs.send(lacks).await;
    }
}

impl Controller {
    /// A submit as it goes to the log, after a majority has what it refers to.
    pub async fn submittable(&self, command: Command) -> Result<(Command, Option<Held>), Failure> {
        let Command::SubmitTask(mut submit) = command else {
            return Ok((command, None));
        };
        let (spec, bulk) = match self.keeps_blobs() {
            true => wire::convert::shorten(submit.spec),
            false => (submit.spec, None),
        };
        let made = spec.blobs.bulk.as_ref().map(|bulk| bulk.blob);
        let given = |blob: &BlobRef| bulk.clone().filter(|_| Some(*blob) == made);
        let payloads: Vec<Payload> = spec.blob_refs().map(|blob| (blob, given(&blob))).collect();
        submit.spec = spec;
        let command = Command::SubmitTask(submit);
        self.cluster.view().admits(&command)?;
        let held = self.hold(payloads).await?;
        Ok((command, held))
    }

    async fn hold(&self, payloads: Vec<Payload>) -> Result<Option<Held>, Failure> {
        if payloads.is_empty() {
            return Ok(None);
        }
        let held = self.cluster.hold(payloads).await;
        held.map(Some).map_err(failure::of_hold)
    }

    /// Not before every controller's release does.
    fn keeps_blobs(&self) -> bool {
        self.cluster.view().state_version() >= StateVersion::BLOBS
    }

    /// Whether a report has to wait until others have its output.
    pub fn has_payload(&self, verdict: &Verdict) -> bool {
        let outcome = &verdict.outcome;
        let long = |stream: &Vec<u8>| stream.len() > model::INLINE_MAX_BYTES;
        let payload = long(&outcome.stdout) || long(&outcome.stderr) || self.wants_whole(verdict);
        // Of one that changes nothing nothing is kept.
        payload && self.keeps_blobs() && self.cluster.view().awaits(verdict.fence)
    }

    /// A report as it goes to the log. None where it can't go there now: its agent sends it again.
    pub async fn reportable(
        &self,
        mut verdict: Verdict,
        session: &Arc<Session>,
    ) -> Option<(Verdict, Option<Held>)> {
        let mut payloads = Vec::new();
        let told = verdict.outcome.clone();
        if self.wants_whole(&verdict) {
            let whole = self.whole_answer(&verdict, session);
            let whole = tokio::time::timeout(limit::LONG_ANSWER, whole).await;
            match whole
                .unwrap_or(Err(Ended::Gone))
                .map(|bytes| (BlobRef::of(&bytes), bytes))
            {
                Ok((blob, bytes)) => {
                    let outcome = &mut verdict.outcome;
                    outcome.stdout = Vec::new();
                    outcome.blobs.stdout = Some(blob);
                    match self.kept_here(blob, bytes).await {
                        Some(payload) => payloads.push(payload),
                        None => return Some((without_blobs(verdict, told), None)),
                    }
                }
                // What is kept of it is all there is.
                Err(Ended::Gone) => {}
                Err(Ended::Complete | Ended::SlowReader | Ended::Disconnected) => return None,
            }
        }
        let outcome = &mut verdict.outcome;
        for (stream, blob) in [
            (&mut outcome.stdout, &mut outcome.blobs.stdout),
            (&mut outcome.stderr, &mut outcome.blobs.stderr),
        ] {
            if stream.len() > model::INLINE_MAX_BYTES {
                let bytes = Bytes::from(std::mem::take(stream));
                let named = BlobRef::of(&bytes);
                *blob = Some(named);
                payloads.push((named, Some(bytes)));
            }
        }
        if payloads.is_empty() {
            return Some((verdict, None));
        }
        match self.cluster.hold(payloads.clone()).await {
            Ok(held) => Some((verdict, Some(held))),
            Err(raft::HoldError::NoRoom(why)) => {
                // An end that can't be told would hold its slot for ever; an output that is cut says so.
                warn!(fence = %verdict.fence, %why, "an output is cut, for there is no room for it");
                Some((without_blobs(verdict, told), None))
            }
            Err(error) => {
                debug!(fence = %verdict.fence, %error, "a report waits");
                None
            }
        }
    }

    /// An answer of which only the end came with the report: half of it would be no answer.
    fn wants_whole(&self, verdict: &Verdict) -> bool {
        let outcome = &verdict.outcome;
        let state = self.cluster.view();
        outcome.end == End::Exited { code: 0 }
            && outcome.stdout_bytes > outcome.stdout.len() as u64
            && outcome.stdout_bytes <= model::BLOB_MAX_BYTES
            && state
                .spec(verdict.fence.task)
                .is_some_and(|spec| spec.inference.is_some())
    }

    async fn whole_answer(
        &self,
        verdict: &Verdict,
        session: &Arc<Session>,
    ) -> Result<Bytes, Ended> {
        // A few at a time: each may be 64 MiB.
        let turn = self.long_answers.acquire().await;
        let _turn = turn.map_err(|_| Ended::Disconnected)?;
        let size = usize::try_from(verdict.outcome.stdout_bytes).unwrap_or(usize::MAX);
        let mut whole: Vec<u8> = Vec::with_capacity(size);
        loop {
            let wanted = Wanted {
                fence: verdict.fence,
                stream: v1::OutputStream::Stdout,
                offset: whole.len() as u64,
                follow: false,
            };
            let mut tail = session.tail(&wanted).ok_or(Ended::Disconnected)?;
            let ended = loop {
                let next = tokio::time::timeout(limit::TAIL_ANSWER, tail.next()).await;
                match next.map_err(|_| Ended::Disconnected)? {
                    Next::Chunk(chunk) if chunk.offset == whole.len() as u64 => {
                        whole.extend_from_slice(&chunk.data);
                        if whole.len() > size {
                            return Err(Ended::Gone);
                        }
                    }
                    Next::Chunk(_) => return Err(Ended::Gone),
                    Next::End(ended) => break ended,
                }
            };
            match ended {
                Ended::Complete if whole.len() == size => return Ok(whole.into()),
                Ended::Complete => return Err(Ended::Gone),
                Ended::SlowReader => {}
                Ended::Gone | Ended::Disconnected => return Err(ended),
            }
        }
    }

    /// What is large goes to this controller's disk first; the others fetch it from there.
    async fn kept_here(&self, blob: BlobRef, bytes: Bytes) -> Option<Payload> {
        if bytes.len() <= limit::CARRIED_BLOB_BYTES {
            return Some((blob, Some(bytes)));
        }
        match self.cluster.append_blob(blob, 0, bytes).await {
            Ok(_) => Some((blob, None)),
            Err(error) => {
                warn!(%error, "an answer can't be kept");
                None
            }
        }
    }

    /// Puts into a task's message what of it is kept beside the log, as far as a message may hold it. What is not here and
    /// can't be fetched now stays a reference.
    pub async fn fill(&self, task: &mut v1::Task) {
        let Some(result) = &mut task.result else {
            return;
        };
        let mut room = limit::FILLED_BYTES;
        for (text, blob) in [
            (&mut result.stdout, &mut result.stdout_blob),
            (&mut result.stderr, &mut result.stderr_blob),
        ] {
            let named = blob.clone().and_then(|blob| BlobRef::try_from(blob).ok());
            let Some(named) = named.filter(|named| named.size <= room) else {
                continue;
            };
            match self.cluster.read_small_blob(named).await {
                Ok(bytes) => {
                    room -= named.size;
                    *text = bytes;
                    *blob = None;
                }
                Err(error) => debug!(blob = %named, %error, "a result is not shown whole"),
            }
        }
    }

    /// The spec as it was asked for.
    pub async fn fill_spec(&self, task: &mut v1::Task, spec: &model::TaskSpec) {
        let Some(bulk) = spec.blobs.bulk.as_ref().map(|bulk| bulk.blob) else {
            return;
        };
        if bulk.size > limit::FILLED_BYTES {
            return;
        }
        if let Ok(bytes) = self.cluster.read_small_blob(bulk).await
            && let Ok(whole) = wire::convert::restore(spec, &bytes)
        {
            task.spec = Some(v1::TaskSpec::from(&whole));
        }
    }
}

/// A report as it came, of each stream its last bytes.
fn without_blobs(verdict: Verdict, mut told: Outcome) -> Verdict {
    for stream in [&mut told.stdout, &mut told.stderr] {
        let from = stream.len().saturating_sub(model::INLINE_MAX_BYTES);
        stream.drain(..from);
    }
    Verdict {
        outcome: told,
        ..verdict
    }
}
