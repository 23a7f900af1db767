//! What an agent has beyond slots: an assignment goes with its GPUs, and only to a machine that still has them.

use model::{Hardware, Supply};

use super::*;

fn with_gpus(gpus: &[u64]) -> AgentProfile {
    AgentProfile {
        supply: Some(Supply {
            cpu_milli: 4_000,
            memory_mib: 1_024,
            gpus: gpus.to_vec(),
        }),
        ..profile("a1", 4)
    }
}

fn on_a_gpu(vram_mib: u64) -> TaskSpec {
    let namespace = Namespace::new("default").expect("it is a name");
    let mut spec = TaskSpec::process(namespace, vec!["train".into()]);
    spec.hardware = Hardware {
        gpus: 1,
        vram_mib,
        ..Hardware::default()
    };
    spec
}

impl Leader {
    fn machine(&mut self, gpus: &[u64], session: u64) {
        let session = SessionId(session);
        self.open_as(with_gpus(gpus), session);
        self.input(Input::Known {
            session,
            attempts: vec![],
        });
    }

    fn submit_on_a_gpu(&mut self, vram_mib: u64) {
        let ticket = self.submit_spec(on_a_gpu(vram_mib));
        assert!(matches!(self.answer(ticket), Some(Ok(_))));
    }

    /// Of each assignment that was sent, its task and GPUs.
    fn sent_gpus(&mut self) -> Vec<(u64, Vec<u16>)> {
        let sent = std::mem::take(&mut self.seen);
        let sent = sent.into_iter().filter_map(|output| match output {
            Output::Send {
                message: Message::Assign { fence, gpus, .. },
                ..
            } => Some((fence.task.0, gpus.to_vec())),
            _ => None,
        });
        sent.collect()
    }
}

#[test]
fn an_assignment_goes_with_its_gpus_and_is_sent_again_only_to_a_machine_that_has_them() {
    let mut leader = Leader::new();
    leader.machine(&[16, 24], 1);
    leader.submit_on_a_gpu(20);
    assert_eq!(leader.sent_gpus(), [(1, vec![1])]);
    // It was lost on its way.
    leader.machine(&[16, 24], 2);
    assert_eq!(leader.sent_gpus(), [(1, vec![1])]);
    // Both are smaller: it is given back, and waits.
    leader.machine(&[16, 16], 3);
    assert_eq!(leader.sent_gpus(), []);
    assert_eq!(leader.task(1), StateName::Queued, "it was given back");
}

#[test]
fn one_whose_gpu_stands_elsewhere_is_given_back_and_decided_anew() {
    let mut leader = Leader::new();
    leader.machine(&[16, 24], 1);
    leader.submit_on_a_gpu(20);
    assert_eq!(leader.sent_gpus(), [(1, vec![1])]);
    leader.machine(&[24], 2);
    assert_eq!(leader.sent_gpus(), [(1, vec![0])]);
    let attempts = leader.state.task(TaskId(1)).map(|task| task.attempts);
    assert_eq!(attempts, Some(2));
}

#[test]
fn what_is_on_its_way_to_the_log_counts_as_taken() {
    let mut leader = Leader::new();
    leader.machine(&[24], 1);
    leader.hold = true;
    for _ in 0..3 {
        leader.submit_spec(on_a_gpu(0));
        leader.pass(100);
    }
    assert_eq!(leader.placed(), 1, "what would be refused is not proposed");
    leader.release();
    leader.pass(100);
    assert_eq!(leader.sent_gpus(), [(1, vec![0])]);
    assert_eq!(leader.task(2), StateName::Queued);
}
