//! What holds packets back, or changes one: a handler of the kernel's queue in the router.
//!
//! ```text
//!   nft marks what is shaped ─► iptables -j NFQUEUE ─► this thread: heap by due time ─► verdict: go on
//! ```
//!
//! `tc netem` would do most of it, and nft's own `queue` would lead here, too; kernels may be built without either,
//! and with the older rule of iptables. A packet that is due later than one behind it is overtaken. Were the thread
//! gone, packets would pass (`--queue-bypass`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};

use crate::Error;
use crate::network::counts::Corruptions;
use crate::network::{Counts, Edge, Effect, Effects, Harm, Namespace};

const QUEUE: u16 = 0;
/// Packets that the kernel keeps for us at most; more are lost, as in a real queue.
const LENGTH: u32 = 8_192;
/// Between two looks: the precision of a delay.
const LOOK: Duration = Duration::from_micros(500);
/// The same while nothing is shaped.
const IDLE_LOOK: Duration = Duration::from_millis(5);

/// The thread, for as long as this value lives.
#[derive(Debug)]
pub struct Shaper {
    plan: Arc<Plan>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told, and what it tells.
#[derive(Debug, Default)]
struct Plan {
    /// By mark.
    edges: Mutex<BTreeMap<u32, (Edge, Effect)>>,
    corruptions: Corruptions,
    counts: Counts,
    is_over: AtomicBool,
}

/// Whether iptables and the kernel's part of it work here; looked at once.
pub fn possible() -> Result<(), String> {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    let probe = || {
        let namespace = Namespace::create()?;
        open(&namespace).map(drop)
    };
    let probed = POSSIBLE.get_or_init(|| probe().map_err(|error: Error| error.to_string()));
    probed.clone()
}

/// The queue of everything that is marked in a namespace.
fn open(router: &Namespace) -> Result<Queue, Error> {
    let rule = "-w -A FORWARD -m mark ! --mark 0 -j NFQUEUE --queue-num 0 --queue-bypass";
    let rule: Vec<&str> = rule.split(' ').collect();
    router.tool("iptables", &rule, "")?;
    let open = || -> std::io::Result<Queue> {
        let mut queue = Queue::open()?;
        queue.bind(QUEUE)?;
        queue.set_queue_max_len(QUEUE, LENGTH)?;
        queue.set_nonblocking(true);
        Ok(queue)
    };
    router.within(open)?.map_err(Error::io("opening a queue"))
}

impl Shaper {
    pub fn start(router: &Namespace) -> Result<Shaper, Error> {
        let queue = open(router)?;
        let plan = Arc::new(Plan::default());
        let theirs = Arc::clone(&plan);
        let thread = std::thread::Builder::new()
            .name("shaper".to_owned())
            .spawn(move || Work::new(queue, theirs).run())
            .map_err(Error::io("starting a thread"))?;
        Ok(Shaper {
            plan,
            thread: Some(thread),
        })
    }

    pub fn counts(&self) -> &Counts {
        &self.plan.counts
    }

    /// `marks` says which mark belongs to which edge.
    pub fn change(&self, old: &Effects, new: &Effects, marks: Vec<(u32, Edge)>) {
        self.plan.corruptions.change(old, new);
        let known = marks.into_iter().filter_map(|(mark, edge)| {
            let effect = *new.get(&edge)?;
            Some((mark, (edge, effect)))
        });
        let mut edges = self
            .plan
            .edges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *edges = known
            .filter(|(_, (_, effect))| effect.is_shaped())
            .collect();
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.plan.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It holds nothing that anybody waits for.
            let _ended = thread.join();
        }
    }
}

/// A packet that waits, ordered by when it is due.
struct Held {
    due: Instant,
    number: u64,
    message: Message,
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

struct Work {
    queue: Queue,
    plan: Arc<Plan>,
    held: BinaryHeap<Reverse<Held>>,
    /// When the line of a slow edge is free again.
    free: BTreeMap<u32, Instant>,
    number: u64,
}

impl Work {
    fn new(queue: Queue, plan: Arc<Plan>) -> Work {
        Work {
            queue,
            plan,
            held: BinaryHeap::new(),
            free: BTreeMap::new(),
            number: 0,
        }
    }

    fn run(mut self) {
        while !self.plan.is_over.load(Ordering::Relaxed) {
            // At most what came before the look, or what is due would wait for a busy line.
            for _ in 0..LENGTH {
                match self.queue.recv() {
                    Ok(message) => self.on_packet(message),
                    Err(_nothing_more) => break,
                }
            }
            self.release();
            let edges = self
                .plan
                .edges
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_idle = self.held.is_empty() && edges.is_empty();
            drop(edges);
            std::thread::sleep(if is_idle { IDLE_LOOK } else { LOOK });
        }
    }

    fn on_packet(&mut self, mut message: Message) {
        let mark = message.get_nfmark();
        let edges = self
            .plan
            .edges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = edges.get(&mark).cloned();
        drop(edges);
        let mut due = Instant::now();
        if let Some((edge, effect)) = found {
            let length = message.get_payload().len();
            if has_data(message.get_payload()) && self.plan.corruptions.take(&edge) {
                corrupt(message.get_payload_mut());
                self.plan.counts.add(&edge, Harm::Corruption);
            }
            if let Some(rate) = effect.rate {
                due = self.free.get(&mark).map_or(due, |free| due.max(*free));
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                due += Duration::from_secs(1) * length / rate.max(1);
                self.free.insert(mark, due);
                self.plan.counts.add(&edge, Harm::Rate);
            }
            if effect.delay > Duration::ZERO || effect.jitter > Duration::ZERO {
                due += effect.delay + effect.jitter.mul_f64(rand::random_range(0.0..1.0));
                self.plan.counts.add(&edge, Harm::Delay);
            }
        }
        self.number += 1;
        self.held.push(Reverse(Held {
            due,
            number: self.number,
            message,
        }));
    }

    fn release(&mut self) {
        let now = Instant::now();
        while self.held.peek().is_some_and(|first| first.0.due <= now) {
            let Some(Reverse(Held { mut message, .. })) = self.held.pop() else {
                return;
            };
            message.set_verdict(Verdict::Accept);
            // One that the kernel no longer knows is lost, as packets may be.
            let _told = self.queue.verdict(message);
        }
    }
}

/// Where the payload of a TCP packet over IPv4 begins, and where TCP does.
fn parts(packet: &[u8]) -> Option<(usize, usize)> {
    const TCP: u8 = 6;
    let ip = usize::from(packet.first()? & 0x0f) * 4;
    if *packet.get(9)? != TCP {
        return None;
    }
    let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
    Some((ip, ip + tcp))
}

fn has_data(packet: &[u8]) -> bool {
    parts(packet).is_some_and(|(_, data)| data < packet.len())
}

/// Another last byte, and the sum that goes with it, so that it reaches the reader.
fn corrupt(packet: &mut [u8]) {
    let Some((tcp, data)) = parts(packet) else {
        return;
    };
    let last = packet.len() - 1;
    if last < data {
        return;
    }
    // The sum is over words of two bytes from the start of TCP.
    let is_high = (last - tcp).is_multiple_of(2);
    let word = |byte: u8| match is_high {
        true => u32::from(byte) << 8,
        false => u32::from(byte),
    };
    let (was, is) = (packet[last], packet[last] ^ 0x01);
    packet[last] = is;
    let sum = u16::from_be_bytes([packet[tcp + 16], packet[tcp + 17]]);
    // RFC 1624: the new sum is ~(~sum + ~old word + new word), with carries wrapped around.
    let mut total = u32::from(!sum) + (0xffff - word(was)) + word(is);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let [high, low] = (!u16::try_from(total).unwrap_or(u16::MAX)).to_be_bytes();
    packet[tcp + 16] = high;
    packet[tcp + 17] = low;
}
