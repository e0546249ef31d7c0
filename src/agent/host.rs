//! What the agent says of its host: `info`. Read afresh each time, but for what cannot change.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, RefreshKind, System};
use tokio::time::Instant;

/// The host, as last looked at.
#[derive(Debug)]
pub struct Host {
    system: Option<System>,
    /// CPU usage is a difference between two looks, which must be some time apart.
    looked: Option<Instant>,
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Host {
    /// Not looked at yet.
    pub const fn new() -> Self {
        Self { system: None, looked: None }
    }

    /// When another look tells the CPU's usage.
    pub fn next_look(&mut self) -> Instant {
        if self.looked.is_none() {
            self.look();
        }
        self.looked.map_or_else(Instant::now, |looked| looked + MINIMUM_CPU_UPDATE_INTERVAL)
    }

    fn look(&mut self) -> Option<&System> {
        let (cpu, memory) = (CpuRefreshKind::nothing().with_usage(), MemoryRefreshKind::everything());
        match &mut self.system {
            Some(system) => {
                system.refresh_cpu_specifics(cpu);
                system.refresh_memory();
            }
            none => *none = System::new_with_specifics(RefreshKind::nothing().with_cpu(cpu).with_memory(memory)).ok(),
        }
        self.looked = Some(Instant::now());
        self.system.as_ref()
    }

    /// The reply to `info`. Blocks for as long as the disks take to answer.
    pub fn info(&mut self) -> Value {
        let cpu_count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let system = self.look();
        let cpu = system.map(|s| {
            let model = s.cpus().first().map_or_else(String::new, |c| c.brand().trim().to_owned());
            json!({"count": s.cpus().len().max(cpu_count), "model": model, "usage_percent": round(s.global_cpu_usage())})
        });
        let memory = system.map(|s| {
            json!({"total_bytes": s.total_memory(), "used_bytes": s.used_memory(),
                "available_bytes": s.available_memory(), "swap_total_bytes": s.total_swap(),
                "swap_used_bytes": s.used_swap()})
        });
        json!({
            "host": System::host_name().ok(),
            "os": {"name": System::name().ok(), "version": System::os_version().ok(),
                "kernel": System::kernel_version().ok(), "arch": System::cpu_arch()},
            "uptime_s": System::uptime().ok(),
            "cpu": cpu,
            "memory": memory,
            "disks": disks(),
            "agent": {"name": "tidegate", "version": env!("CARGO_PKG_VERSION")},
            "time_ms": unix_ms(),
        })
    }
}

fn disks() -> Vec<Value> {
    let Ok(disks) = Disks::new_with_refreshed_list() else { return Vec::new() };
    let disk = |d: &sysinfo::Disk| {
        json!({"mount": d.mount_point().to_string_lossy(), "file_system": d.file_system().to_string_lossy(),
            "total_bytes": d.total_space(), "available_bytes": d.available_space()})
    };
    disks.iter().map(disk).collect()
}

/// One decimal: what is behind it is noise.
fn round(percent: f32) -> f64 {
    (f64::from(percent) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_names_the_host_its_system_cpu_memory_and_this_agent() {
        let info = Host::new().info();

        assert!(info["host"].as_str().is_some_and(|name| !name.is_empty()), "{info}");
        assert!(info["os"]["kernel"].is_string() && info["cpu"]["count"].as_u64() >= Some(1), "{info}");
        assert!(info["memory"]["total_bytes"].as_u64() > info["memory"]["used_bytes"].as_u64(), "{info}");
        assert_eq!(info["agent"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
