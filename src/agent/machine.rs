//! What this machine has for attempts beside slots: processors, memory, GPUs. As it was told, else as it finds.

use std::process::Stdio;
use std::time::Duration;

use model::Supply;
use procfs::{Current, Meminfo};
use tokio::process::Command;

use crate::config::{Config, GpuConfig, cores, gpu_names};
use crate::process::memory_ceiling;

const MIB: u64 = 1024 * 1024;
/// A driver that hangs must not keep the agent from starting.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it has, and what its GPUs are called in `CUDA_VISIBLE_DEVICES`, in the order of `supply.gpus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub supply: Supply,
    pub gpu_names: Vec<String>,
}

impl Machine {
    pub async fn of(config: &Config) -> Machine {
        let gpus = match &config.gpus {
            Some(told) => told.clone(),
            None => nvidia().await,
        };
        Machine {
            gpu_names: gpu_names(&gpus),
            supply: Supply {
                cpu_milli: config.cpu_milli.unwrap_or_else(cpu_milli),
                memory_mib: config.memory_mib.unwrap_or_else(memory_mib),
                gpus: gpus.iter().map(|gpu| gpu.vram_mib).collect(),
            },
        }
    }
}

/// What this process may use, by its affinity and the quota of its cgroup.
fn cpu_milli() -> u32 {
    cores().saturating_mul(1_000).min(model::CPU_MILLI_MAX)
}

/// What the machine has, and no more than this process may use. What others use of it is not known in advance: who shares the
/// machine sets it.
fn memory_mib() -> u64 {
    let all = Meminfo::current().map_or(0, |memory| memory.mem_total);
    let ceiling = memory_ceiling().unwrap_or(u64::MAX);
    (all.min(ceiling) / MIB).min(model::MEMORY_MIB_MAX)
}

/// What the driver's own tool lists; none where there is no such tool, which is no fault.
async fn nvidia() -> Vec<GpuConfig> {
    let asked = Command::new("nvidia-smi")
        .args([
            "--query-gpu=uuid,memory.total",
            "--format=csv,noheader,nounits",
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let listed = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(output)) if output.status.success() => output.stdout,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout);
            tracing::warn!(status = %output.status, said = %said.trim(), "nvidia-smi lists no GPUs: none are offered");
            return Vec::new();
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "nvidia-smi could not be run: no GPUs are offered");
            return Vec::new();
        }
        Err(_) => {
            tracing::warn!("nvidia-smi did not answer within 10 s: no GPUs are offered");
            return Vec::new();
        }
    };
    let text = String::from_utf8_lossy(&listed);
    let mut gpus: Vec<GpuConfig> = text.lines().filter_map(gpu).collect();
    if gpus.len() > model::GPUS_MAX {
        tracing::warn!(
            found = gpus.len(),
            "more GPUs than an agent may have: the first are offered"
        );
        gpus.truncate(model::GPUS_MAX);
    }
    gpus
}

/// A line such as `GPU-8f6d…, 24576`. A part of a GPU, and one whose memory is not its own, says no number: it is left out.
fn gpu(line: &str) -> Option<GpuConfig> {
    let (name, memory) = line.split_once(',')?;
    let vram_mib = memory.trim().parse().ok().filter(|vram| *vram > 0);
    if vram_mib.is_none() {
        tracing::warn!(
            line,
            "a GPU that does not say how much memory it has is not offered"
        );
    }
    Some(GpuConfig {
        vram_mib: vram_mib?,
        name: Some(name.trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_drivers_tool_prints_is_read_and_what_has_no_memory_of_its_own_left_out() {
        let read = gpu("GPU-8f6d0c5e-1, 24576").unwrap();
        assert_eq!(
            (read.vram_mib, read.name.as_deref()),
            (24_576, Some("GPU-8f6d0c5e-1"))
        );
        for line in ["", "GPU-1", "GPU-1, [N/A]", "GPU-1, 0"] {
            assert_eq!(gpu(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_told_holds_and_the_rest_is_found() {
        let config = Config {
            cpu_milli: Some(1_500),
            gpus: Some(vec![
                GpuConfig {
                    vram_mib: 16,
                    name: None,
                },
                GpuConfig {
                    vram_mib: 24,
                    name: Some("GPU-b".into()),
                },
            ]),
            ..Config::default()
        };
        let machine = Machine::of(&config).await;
        assert_eq!(machine.supply.cpu_milli, 1_500);
        assert_eq!(machine.supply.gpus, [16, 24]);
        assert_eq!(machine.gpu_names, ["0", "GPU-b"]);
        let total = Meminfo::current().unwrap().mem_total / MIB;
        assert!(
            (1..=total).contains(&machine.supply.memory_mib),
            "{machine:?}"
        );
        let found = Machine::of(&Config::default()).await;
        assert!(found.supply.cpu_milli >= 1_000);
    }
}
