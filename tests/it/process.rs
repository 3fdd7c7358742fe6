//! A broker in a process of its own, so that it can be killed, starved, stopped, and end with a code.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a process may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `warren serve`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    http: Option<SocketAddr>,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process that ended by itself leaves.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Everything that it wrote to standard error.
    pub(crate) errors: String,
}

/// `warren serve` on free ports, with its data in `data_dir`.
pub(crate) fn serve(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    add_serve(&mut command, data_dir);
    command
}

/// As [`serve`], begun by a shell after `first`, as in `ulimit -n 256`.
pub(crate) fn serve_after(first: &str, data_dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{first}; exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_warren"));
    add_serve(&mut command, data_dir);
    command
}

fn add_serve(command: &mut Command, data_dir: &Path) {
    command.arg("serve").arg("--data-dir").arg(data_dir);
    for listener in ["--listen", "--peer-listen", "--http-listen"] {
        command.args([listener, "127.0.0.1:0"]);
    }
}

impl Process {
    /// Starts it; gives what it left if it ended before it served.
    pub(crate) fn start(command: Command) -> Result<Self, Ended> {
        Self::start_with(command, Stdio::null())
    }

    /// The same with something to read.
    pub(crate) fn start_with(mut command: Command, input: Stdio) -> Result<Self, Ended> {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's program");
        let errors = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("a pipe");
        let heard = Arc::clone(&errors);
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                heard.lock().expect("no panic").push_str(&text);
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (mut address, mut http) = (None, None);
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(listening) = line.strip_prefix("AMQP listening on ") {
                address = listening.parse().ok();
            }
            if let Some(listening) = line.strip_prefix("HTTP listening on ") {
                http = listening.parse().ok();
            }
            if line.starts_with("Server startup complete") {
                break;
            }
        }
        // The pipe must stay open and empty, or a later line would end the server.
        let emptier = std::thread::spawn(move || lines.for_each(drop));
        let mut process = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            http,
            errors,
            readers: vec![listener, emptier],
        };
        match address {
            Some(address) => {
                process.address = address;
                Ok(process)
            }
            None => Err(process.wait()),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http.expect("it said so")
    }

    /// What it has written to standard error so far, once that is enough.
    pub(crate) fn errors_until(&self, is_enough: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let errors = self.errors.lock().expect("no panic").clone();
            if is_enough(&errors) {
                return errors;
            }
            assert!(begin.elapsed() < PATIENCE, "it only says {errors}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its number in the system.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("our child") {
                Some(status) => break status,
                None if begin.elapsed() > PATIENCE => panic!("the broker does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        let errors = self.errors.lock().expect("no panic").clone();
        Ended { status, errors }
    }

    /// Sends it a signal by name, as in `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Files and sockets that it has open.
    pub(crate) fn open_files(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        entries.expect("it runs").count()
    }

    /// Processor time that it has used, in user and system mode together.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = |at: usize| -> u64 {
            let field = fields.split_ascii_whitespace().nth(at);
            field
                .and_then(|field| field.parse().ok())
                .expect("a number")
        };
        // utime and stime are fields 14 and 15 of the line; a tick is 10 ms on every Linux we know.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
