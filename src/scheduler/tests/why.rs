//! What `task why` says of who waits.

use super::{NOW, cluster, fleet, task};
use crate::explain;

#[test]
fn it_says_which_of_what_a_task_requires_agents_lack() {
    let told = |require: &[&str]| {
        let mut spec = task("");
        spec.require = require.iter().map(|it| it.parse().unwrap()).collect();
        let state = cluster(&[("a1", 1, "a"), ("a2", 1, "b")], &[spec]);
        explain(&state, &fleet(&state), NOW, model::TaskId(1))
            .unwrap()
            .summary
    };
    let lead = "It waits as number 1 in the queue: of 2 agents 2 do not satisfy its `require`.";
    assert_eq!(told(&["zone=c"]), format!("{lead} 0 satisfy `zone=c`."));
    assert_eq!(
        told(&["zone", "zone=a", "disk in (nvme,ssd)"]),
        format!("{lead} 1 satisfy `zone=a`, 0 satisfy `disk in (nvme,ssd)`.")
    );
    assert_eq!(
        told(&["zone=a"]),
        "It is number 1 in the queue; 1 of 2 agents can take it."
    );
}
