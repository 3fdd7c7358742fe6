//! The broker's process: started by a command, killed with SIGKILL, started again.
//!
//! Owns: the process group that the command was started in. A pid is signalled only if it is that
//! group's, or if the started broker wrote it into the pid file, which is removed before each start.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{self, Pid, Signal};

use crate::client::Connection;

/// How long a killed process may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(20);
/// How long the broker may take to end by itself after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How the broker is started and where it is reached.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    /// Shell command that starts it, in the foreground or leaving a pid file.
    pub(crate) start: String,
    /// Shell command for every start but the first.
    pub(crate) restart: String,
    pub(crate) pid_file: Option<PathBuf>,
    /// Where the broker's output goes, all lives one after the other.
    pub(crate) log: PathBuf,
    pub(crate) child: Option<Child>,
}

impl Broker {
    /// Starts the process and returns at once. `is_first` tells which command does it.
    pub(crate) fn start(&mut self, is_first: bool) -> io::Result<()> {
        if let Some(path) = &self.pid_file {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let command = if is_first { &self.start } else { &self.restart };
        let child = Command::new("sh")
            .args(["-c", command])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until a client gets through its handshake. False if the process is gone or time is up.
    pub(crate) fn wait_until_ready(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Ok(connection) = Connection::open(self.address) {
                connection.close();
                return true;
            }
            if !self.is_alive() {
                return false;
            }
            thread::sleep(Duration::from_millis(3));
        }
        false
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        let running = self
            .child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        running
            || self
                .pid()
                .is_some_and(|pid| process::test_kill_process(pid).is_ok())
    }

    /// The pid in the pid file of this life, if it was written yet.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_file.as_ref()?).ok()?;
        text.trim().parse().ok().and_then(Pid::from_raw)
    }

    /// Sends SIGKILL to all of it and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        let pid = self.pid();
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = process::kill_process(pid, Signal::KILL);
        }
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let group = Pid::from_child(&child);
        let _ = process::kill_process_group(group, Signal::KILL);
        child.wait()?;
        let deadline = Instant::now() + GONE_MAX;
        let is_there = || {
            process::test_kill_process_group(group).is_ok()
                || pid.is_some_and(|pid| process::test_kill_process(pid).is_ok())
        };
        while is_there() {
            if Instant::now() > deadline {
                return Err(io::Error::other("the broker's process outlives SIGKILL"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends SIGTERM and waits until the broker has ended by itself. False if it had to be killed.
    pub(crate) fn stop(&mut self) -> io::Result<bool> {
        let child = self.child.as_ref().map(Pid::from_child);
        if let Some(pid) = self.pid().or(child) {
            let _ = process::kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_MAX;
        while self.is_alive() {
            if Instant::now() > deadline {
                self.kill()?;
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill()?;
        Ok(true)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing is left behind, however the run ends.
        let _ = self.kill();
    }
}
