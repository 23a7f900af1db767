//! One session of the bench agent: a stream to one controller, opened again whenever it ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::sessions_client::SessionsClient;

use super::lock;
use super::protocol::Journal;

/// Before a session is opened again, doubled with each failure: as a real agent does it, so that a thousand
/// of them knock as a thousand machines would.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A session that lasted so long is no failure.
const STEADY: Duration = Duration::from_secs(5);
/// How often it is looked whether something is due; renewals are seconds apart, and there may be thousands
/// of sessions in one process.
const TICK: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub async fn keep_up(
    number: usize,
    channel: Channel,
    turns: Arc<Semaphore>,
    journal: Arc<Mutex<Journal>>,
    mut changed: watch::Receiver<()>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ended = once(number, channel.clone(), &turns, &journal, &mut changed).await;
        if let Err(status) = ended {
            lock(&journal).note_end(number, status.to_string());
        } else {
            lock(&journal).note_end(number, "the controller closed it".to_owned());
        }
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        // A quarter of it is random.
        let waits = pause.mul_f64(rand::rng().random_range(0.75..1.0));
        tokio::time::sleep(waits).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

async fn once(
    number: usize,
    channel: Channel,
    turns: &Semaphore,
    journal: &Mutex<Journal>,
    changed: &mut watch::Receiver<()>,
) -> Result<(), Status> {
    // Until the controller has answered; a semaphore that nobody closes gives a turn.
    let mut turn = turns.acquire().await.ok();
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
                drop(turn.take());
                let answers = lock(journal).hear(number, frame, Instant::now());
                line.send_all(answers)?;
                // What is due by the clock can wait for the tick: this runs thousands of times a second.
                continue;
            }
            _ = tick.tick() => {}
            told = changed.changed() => {
                // The agent is gone, and this with it.
                if told.is_err() {
                    return Ok(());
                }
            }
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
