//! One session of the bench agent: a stream to one controller, opened again whenever it ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::sessions_client::SessionsClient;

use super::lock;
use super::protocol::Journal;

/// Before a session is opened again: a controller that is down refuses at once.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether something is due; renewals are seconds apart.
const TICK: Duration = Duration::from_millis(250);

/// Runs until it is aborted.
pub async fn keep_up(
    number: usize,
    channel: Channel,
    journal: Arc<Mutex<Journal>>,
    changed: Arc<Notify>,
) {
    loop {
        let ended = once(number, channel.clone(), &journal, &changed).await;
        if let Err(status) = ended {
            lock(&journal).note_end(number, status.to_string());
        } else {
            lock(&journal).note_end(number, "the controller closed it".to_owned());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(
    number: usize,
    channel: Channel,
    journal: &Mutex<Journal>,
    changed: &Notify,
) -> Result<(), Status> {
    let (say, said) = mpsc::unbounded_channel();
    let mut line = Line {
        say,
        sent: 0,
        heard: 0,
    };
    line.send(lock(journal).hello())?;
    let stream = UnboundedReceiverStream::new(said);
    let mut frames: Streaming<v1::ControllerFrame> = SessionsClient::new(channel)
        .connect(stream)
        .await?
        .into_inner();
    let mut tick = tokio::time::interval(TICK);
    let mut last_status = None::<Instant>;
    loop {
        tokio::select! {
            frame = frames.message() => {
                let Some(frame) = frame? else { return Ok(()) };
                line.count(frame.seq)?;
                let answers = lock(journal).hear(number, frame, Instant::now());
                line.send_all(answers)?;
                // What is due by the clock can wait for the tick: this runs thousands of times a second.
                continue;
            }
            _ = tick.tick() => {}
            () = changed.notified() => {}
        }
        let now = Instant::now();
        let due = lock(journal).due(number, now);
        line.send_all(due)?;
        if last_status.is_none_or(|sent| now.duration_since(sent) >= Journal::status_interval()) {
            last_status = Some(now);
            let status = lock(journal).status();
            line.send_all(status)?;
        }
    }
}

/// Numbers the frames of both directions.
struct Line {
    say: mpsc::UnboundedSender<v1::AgentFrame>,
    sent: u64,
    heard: u64,
}

impl Line {
    fn count(&mut self, seq: u64) -> Result<(), Status> {
        if seq != self.heard + 1 {
            return Err(Status::data_loss(format!(
                "frame {seq} after {}",
                self.heard
            )));
        }
        self.heard = seq;
        Ok(())
    }

    fn send_all(&mut self, bodies: impl IntoIterator<Item = Body>) -> Result<(), Status> {
        bodies.into_iter().try_for_each(|body| self.send(body))
    }

    fn send(&mut self, body: Body) -> Result<(), Status> {
        self.sent += 1;
        let frame = v1::AgentFrame {
            seq: self.sent,
            ack: self.heard,
            body: Some(body),
        };
        self.say
            .send(frame)
            .map_err(|_closed| Status::cancelled("the session has ended"))
    }
}
