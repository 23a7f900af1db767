//! Agents: what they say of themselves in `Hello`.

use model::{AgentId, Incarnation};

use super::{Malformed, labels_in, labels_out};
use crate::v1;

impl TryFrom<&v1::Hello> for model::AgentProfile {
    type Error = Malformed;

    fn try_from(hello: &v1::Hello) -> Result<model::AgentProfile, Malformed> {
        let incarnation = <[u8; 16]>::try_from(&hello.incarnation[..])
            .map_err(|_| Malformed("an incarnation has 16 bytes".into()))?;
        Ok(model::AgentProfile {
            id: AgentId::new(&hello.agent)?,
            incarnation: Incarnation(incarnation),
            slots: hello.slots,
            labels: labels_in(hello.labels.clone())?,
            version: hello.version.clone(),
            limits: hello.limits.clone(),
        })
    }
}

/// The first frame of an agent's session. `cluster_id` is empty before it ever was in one.
pub fn hello(
    profile: &model::AgentProfile,
    cluster_id: String,
    generation: model::Generation,
) -> v1::Hello {
    v1::Hello {
        agent: profile.id.to_string(),
        incarnation: profile.incarnation.0.to_vec().into(),
        slots: profile.slots,
        labels: labels_out(&profile.labels),
        version: profile.version.clone(),
        limits: profile.limits.clone(),
        cluster_id,
        generation: generation.0,
    }
}
