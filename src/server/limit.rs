//! The limits of a controller's shell: every queue, page and wait, with its unit and its reason.
//! Those of connections and messages are `wire::transport`'s.

use std::time::Duration;

/// Tasks in one answer of a list, so that an answer stays under the message limit where specs are
/// of the usual size.
pub const PAGE_MAX: usize = 1_000;
/// Tasks in one answer where the caller did not say.
pub const PAGE_DEFAULT: usize = 100;
/// Bytes of tasks in one answer of a list: specs may be large, and a page is then shorter.
pub const PAGE_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Archived tasks that a list reads at once.
pub const ARCHIVE_PAGE: usize = 200;
/// Entries with events that are read at once, of some 200 bytes each.
pub const EVENTS_PAGE: usize = 1_000;
/// Bytes of events in one message, about; more than one message may take (4 MiB) never comes near.
pub const EVENTS_BYTES: usize = 1 << 20;
/// Task records that one list looks at under filters; the page then ends early, with `next`.
pub const SCAN_MAX: usize = 100_000;

/// Inputs that wait for the dispatcher. Requests beyond wait in their own handlers.
pub const INPUTS: usize = 8_192;
/// Inputs that the dispatcher takes before it plans once: a burst shares one proposal.
pub const BURST: usize = 1_024;
/// Frames that wait for one agent. More means that it does not read: its session ends, and it may
/// open another one.
pub const FRAMES: usize = 8_192;
/// Chunks of output that wait for one reader of logs; with 64 KiB each, 4 MiB.
pub const CHUNKS: usize = 64;
/// Answers that wait in one watch or log stream.
pub const STREAM_ANSWERS: usize = 16;
/// Submits of one stream that are read and whose replies are not taken yet; the client is held back beyond. Four times the
/// calls that a connection may have at once, so that a stream never does less. With specs of the largest size they are
/// 256 MiB for each time that a submit is copied on its way.
pub const SUBMITS_ON_A_STREAM: usize = 1_024;
/// Outputs that may be read at a time through one agent's session.
pub const TAILS_PER_SESSION: usize = 256;
/// Bytes of one result that a task's message holds; what is longer is fetched apart.
pub const FILLED_BYTES: u64 = 1 << 20;
/// Bytes of an answer that travel with the question who has it; what is longer is fetched by those who have it not.
pub const CARRIED_BLOB_BYTES: usize = 256 * 1024;
/// Answers of up to 64 MiB that are in memory at once, on their way from their agents to the disk.
pub const LONG_ANSWERS: usize = 2;
/// How long one may take to come.
pub const LONG_ANSWER: Duration = Duration::from_secs(60);
/// How long an upload may pause.
pub const UPLOAD_PAUSE: Duration = Duration::from_secs(30);
/// Tries of a submit whose voters changed meanwhile.
pub const HOLD_TRIES: usize = 5;
/// Renewals that wait for a quorum round. An agent renews every 5 s.
pub const RENEWALS: usize = 16_384;
/// Certificates whose principal is remembered.
pub const CERTIFICATES: usize = 4_096;
/// Bytes kept while the last lines of an output are looked for; longer ends are cut at the front.
pub const LAST_LINES_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of output in one answer of a log stream: well under the message limit, whatever was read at
/// once.
pub const LOG_ANSWER_BYTES: usize = 256 * 1024;

/// Tries to join that one address may make in a second.
pub const ENROLMENTS_PER_SECOND: u32 = 5;
/// Addresses whose tries are counted; one that is quiet for a second is forgotten.
pub const ENROLMENT_ADDRESSES: usize = 4_096;
/// Bytes of a request to join: a certificate request and a few names.
pub const ENROLMENT_BYTES: usize = 16 * 1024;
/// Names and addresses in one controller's certificate.
pub const HOSTS_MAX: usize = 16;
/// Letters of a token's id that are logged: anybody may send one, as long as they like.
pub const TOKEN_ID_SHOWN: usize = 16;
/// Between two tries to get the CA's key from another voter.
pub const AUTHORITY_PAUSE: Duration = Duration::from_secs(1);

/// How often leases, deadlines and retries are looked at.
pub const TICK: Duration = Duration::from_millis(100);
/// How long a request waits for a leader where its caller set no deadline.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Kept back from a wait that lasts as long as its caller's deadline, to read the state once more.
pub const LAST_LOOK: Duration = Duration::from_millis(500);
/// Kept back from a caller's deadline, so that our answer arrives before its own alarm.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(100);
/// Between two tries of a request where nothing says that the leader changed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Wait without a time.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest wait in one request; the caller asks again.
pub const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// How long a new session may take to say hello.
pub const HELLO: Duration = Duration::from_secs(5);
/// An agent that said nothing for so long is suspect: three of its beats.
pub const SILENCE: Duration = Duration::from_secs(15);
/// A session that was silent for so long is closed: its agent must have opened another one.
pub const SESSION_SILENCE: Duration = Duration::from_secs(30);
/// How long an agent may take to begin to answer a request for output.
pub const TAIL_ANSWER: Duration = Duration::from_secs(5);
/// How long another member may take to say how it is.
pub const MEMBER_ANSWER: Duration = Duration::from_secs(1);
/// Between two rounds in which a controller asks the others how they are: a few answers of some KiB.
pub const VIGIL: Duration = Duration::from_secs(3);
/// Wall clocks of two members further apart are an alarm.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);
/// An alarm ends this far below the limit, more than one measurement differs from the next.
pub const CLOCK_SKEW_SLACK: Duration = Duration::from_millis(500);
/// The longest round trip that still tells how late another's clock is: right within half of it.
pub const CLOCK_ROUND_TRIP: Duration = Duration::from_millis(500);
/// How long a measurement counts where no other one follows: ten rounds.
pub const CLOCK_FRESH: Duration = Duration::from_secs(30);
/// Between two looks at how full this controller's disk is: far less than it takes to fill what is kept.
pub const DISK_LOOK: Duration = Duration::from_secs(1);
/// There is room again this part of the limit above it.
pub const DISK_SLACK_PART: u64 = 4;
/// How long what a controller said of its disk counts where nothing else follows: ten rounds.
pub const DISK_FRESH: Duration = Duration::from_secs(30);
/// How long readiness waits for a quorum, and for how long its answer is used again.
pub const READY_ANSWER: Duration = Duration::from_secs(1);
pub const READY_FRESH: Duration = Duration::from_millis(250);
/// How long a connection to the HTTPS port may take to ask, and to ask again.
pub const HTTPS_REQUEST: Duration = Duration::from_secs(30);
/// How long one try to join may take: a learner has to catch up.
pub const JOIN_TRY: Duration = Duration::from_secs(60);
/// Between two rounds of asking to join.
pub const JOIN_PAUSE: Duration = Duration::from_secs(1);
/// How long a stopping controller waits for requests and streams to end by themselves.
pub const DRAIN: Duration = Duration::from_secs(5);
