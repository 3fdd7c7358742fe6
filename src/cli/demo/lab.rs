//! A broker and nodes as real processes on loopback, in a temporary folder that goes with them.
//!
//! Owns: the processes, their folders, and how much CPU time they took. Dropping the lab ends the
//! processes and removes the folder, also when a step failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The group that every node of a demo belongs to.
pub(super) const GROUP: &str = "demo";
/// Longest wait for a started process to say that it is ready.
const START_WAIT: Duration = Duration::from_secs(60);
/// Longest wait for a process to end after SIGTERM, before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A temporary folder, removed on drop.
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> anyhow::Result<Self> {
        let name = format!("warren-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| {
            format!(
                "cannot create the folder {}; remove it if it is left over",
                path.display()
            )
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warren demo: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// One process of the lab.
struct Process {
    name: String,
    child: Child,
}

/// A broker and its nodes, ready.
pub(super) struct Lab {
    // The order matters: processes end before their folder goes.
    broker: Process,
    nodes: Vec<Process>,
    broker_uri: String,
    folder: TemporaryFolder,
}

impl Lab {
    /// Starts a broker and `node_count` nodes and waits until all are ready.
    pub(super) async fn start(node_count: usize) -> anyhow::Result<Self> {
        let folder = TemporaryFolder::create()?;
        let mut command = warren("serve")?;
        command.arg("--data-dir").arg(folder.path().join("broker"));
        for listener in ["--listen", "--peer-listen", "--http-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let (broker, lines) =
            start(command, "broker", folder.path(), "Server startup complete").await?;
        let port = lines
            .iter()
            .find(|line| line.starts_with("AMQP "))
            .and_then(|line| line.rsplit(':').next())
            .context("the broker did not say on which port it listens")?;
        let broker_uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2F");
        let mut lab = Self {
            broker,
            nodes: Vec::new(),
            broker_uri,
            folder,
        };
        for index in 1..=node_count {
            let node = lab.start_node(index).await?;
            lab.nodes.push(node);
        }
        Ok(lab)
    }

    async fn start_node(&self, index: usize) -> anyhow::Result<Process> {
        let name = node_name(index);
        let home = self.folder.path().join(&name);
        fs::create_dir_all(self.inbox(index))?;
        let mut command = warren("node")?;
        command
            .args([
                "--broker",
                &self.broker_uri,
                "--name",
                &name,
                "--group",
                GROUP,
            ])
            .args(["--peer-listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.join("data"))
            .arg("--inbox")
            .arg(self.inbox(index));
        let (process, _) = start(command, &name, self.folder.path(), "ready").await?;
        Ok(process)
    }

    /// Where node `index` (from 1) places its files.
    pub(super) fn inbox(&self, index: usize) -> PathBuf {
        self.folder.path().join(node_name(index)).join("inbox")
    }

    /// The folder of everything in this lab.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many nodes run.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The broker's address, for clients.
    pub(super) fn broker_uri(&self) -> &str {
        &self.broker_uri
    }

    /// CPU time that broker and nodes have taken since they started.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut total = self.broker_cpu_time()?;
        for node in &self.nodes {
            total += process_cpu_time(node)?;
        }
        Ok(total)
    }

    /// CPU time that the broker alone has taken since it started.
    pub(super) fn broker_cpu_time(&self) -> anyhow::Result<Duration> {
        process_cpu_time(&self.broker)
    }

    /// Ends all processes in an orderly way.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for process in self.nodes.iter_mut().chain([&mut self.broker]) {
            terminate(process);
        }
        for process in self.nodes.iter_mut().chain([&mut self.broker]) {
            match timeout(STOP_WAIT, process.child.wait()).await {
                Ok(status) => {
                    let status = status?;
                    if !status.success() {
                        bail!("{} ended with {status} when asked to stop", process.name);
                    }
                }
                Err(_) => {
                    process.child.kill().await?;
                    bail!(
                        "{} did not stop within {STOP_WAIT:?} and was killed",
                        process.name
                    );
                }
            }
        }
        Ok(())
    }
}

/// The name of node `index`, from 1.
pub(super) fn node_name(index: usize) -> String {
    format!("node{index:02}")
}

/// This same program with a subcommand, quiet but for warnings.
pub(super) fn warren(subcommand: &str) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut command = Command::new(program);
    command
        .args(["--log", "warn", subcommand])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// Starts a process and reads its output until a line contains `ready`; gives the lines so far.
async fn start(
    mut command: Command,
    name: &str,
    folder: &Path,
    ready: &str,
) -> anyhow::Result<(Process, Vec<String>)> {
    let log_path = folder.join(format!("{name}.log"));
    let log = fs::File::create(&log_path)?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = child.stdout.take().context("a piped standard output")?;
    let mut reader = BufReader::new(stdout).lines();
    let mut lines = Vec::new();
    let wait = async {
        while let Some(line) = reader.next_line().await? {
            let found = line.contains(ready);
            lines.push(line);
            if found {
                return Ok(true);
            }
        }
        Ok::<_, std::io::Error>(false)
    };
    let outcome = timeout(START_WAIT, wait).await;
    if !matches!(outcome, Ok(Ok(true))) {
        let log = fs::read_to_string(&log_path).unwrap_or_default();
        bail!(
            "{name} did not become ready; it printed:\n{}\n{log}",
            lines.join("\n")
        );
    }
    // Keep reading, so that the process never blocks on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = reader.next_line().await {} });
    Ok((
        Process {
            name: name.to_owned(),
            child,
        },
        lines,
    ))
}

fn terminate(process: &Process) {
    let pid = process.child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        // It may have ended already; then waiting tells its status.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

fn process_cpu_time(process: &Process) -> anyhow::Result<Duration> {
    let gone = || format!("{} has ended before its time", process.name);
    let pid = process.child.id().with_context(gone)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(gone)?;
    cpu_time_of_stat(&stat, OWN_TIME_FIELD)
        .with_context(|| format!("cannot read the CPU time of {}", process.name))
}

/// User and system time of a line of `/proc/PID/stat`; its name field may hold spaces and brackets.
fn cpu_time_of_stat(stat: &str, field: usize) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(field);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let millis = user
        .checked_add(system)?
        .checked_mul(1000)?
        .checked_div(ticks_per_second)?;
    Some(Duration::from_millis(millis))
}

/// CPU time of this process's ended children.
pub(super) fn ended_children_cpu_time() -> anyhow::Result<Duration> {
    own_stat(CHILDREN_TIME_FIELD)
}

/// CPU time of this process itself.
pub(super) fn own_cpu_time() -> anyhow::Result<Duration> {
    own_stat(OWN_TIME_FIELD)
}

fn own_stat(field: usize) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    cpu_time_of_stat(&stat, field).context("cannot read this process's CPU time")
}

/// Fields of `/proc/PID/stat` behind the name that come before a process's own user and system time.
const OWN_TIME_FIELD: usize = 11;
/// The same for its ended children's.
const CHILDREN_TIME_FIELD: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    /// The process name may contain what separates the fields.
    #[test]
    fn cpu_time_is_read_behind_the_name() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(
            cpu_time_of_stat(stat, OWN_TIME_FIELD),
            Some(Duration::from_millis(200 * 1000 / ticks))
        );
        assert_eq!(cpu_time_of_stat("42 (x) S 1 2", OWN_TIME_FIELD), None);
    }
}
