use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};

/// The operating system user that servers run as. PostgreSQL refuses to run as root.
pub fn server_user() -> Option<&'static str> {
    geteuid().is_root().then_some("postgres")
}

/// A command that runs as the servers' user.
pub fn command(program: &Path) -> Command {
    match server_user() {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups", "--"]);
            command.arg(program);
            command
        }
    }
}

/// Makes `path` over to the servers' user.
pub fn give(path: &Path) {
    if let Some(user) = server_user() {
        run(Command::new("chown").arg(format!("{user}:")).arg(path));
    }
}

/// Makes a directory that the servers write to.
///
/// # Panics
/// When it cannot be made.
pub fn make_for_server(path: &Path) {
    fs::create_dir(path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    give(path);
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it fails, with what it wrote to standard error.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server process. It gets `last_signal` when this process dies, even of SIGKILL: the kernel sees to that, so that an
/// interrupted test run leaves nothing behind. What it has started itself, as a wrapper does, ends with it.
pub struct Process {
    child: Child,
    log: PathBuf,
    last_signal: Signal,
}

impl Process {
    /// Starts `program`, its output going to the end of `log`. To be called on the thread of the test itself: the
    /// kernel takes the end of that very thread for the end of the parent.
    pub fn start(program: &Path, arguments: &[String], as_server: bool, last_signal: Signal, log: &Path) -> Self {
        let name = if last_signal == Signal::QUIT { "QUIT" } else { "KILL" };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", name]);
        if let Some(user) = server_user().filter(|_| as_server) {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
        }
        let output = OpenOptions::new().create(true).append(true).open(log).expect("cannot open the server's log");
        command
            .arg("--")
            .arg(program)
            .args(arguments)
            // A group of its own: Ctrl-C is for us to handle, not for the server.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("cannot duplicate a file descriptor"))
            .stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned(), last_signal }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    fn signal_group(&self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("cannot wait for a child").is_some()
    }

    /// Waits until it has ended; false when it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> bool {
        wait_until(limit, || self.has_ended())
    }
}

/// A program of `folder` that is killed with the test, whatever it has started.
pub fn service(folder: &Path, command: &[&str], log: &Path) -> Process {
    let folder = folder.to_string_lossy();
    let arguments: Vec<String> = ["-C", &folder].iter().chain(command).map(ToString::to_string).collect();
    Process::start(Path::new("env"), &arguments, false, Signal::KILL, log)
}

/// Waits until `condition` holds; false when it has not within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            // To the group that it leads. It has not been waited for, so its number is nobody else's yet.
            self.signal_group(self.last_signal);
            if !self.wait(Duration::from_secs(10)) {
                self.signal_group(Signal::KILL);
                self.wait(Duration::from_secs(10));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the end of {}", self.log.display());
            eprintln!("{}", tail(&self.log, 40));
        }
    }
}

pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn send(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("not a pid");
    // It may be gone already.
    let _ = kill_process(pid, signal);
}

/// SIGKILL: the process gets no chance to do anything.
pub fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

/// SIGTERM: the process is asked to end.
pub fn terminate(pid: i32) {
    send(pid, Signal::TERM);
}

/// SIGSTOP: the process is there but does nothing until [`thaw`].
pub fn freeze(pid: i32) {
    send(pid, Signal::STOP);
}

pub fn thaw(pid: i32) {
    send(pid, Signal::CONT);
}

/// The processes that a process has started and that are there still.
pub fn children(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|child: &i32| stat(*child).get(1).is_some_and(|parent| *parent == pid.to_string())).collect()
}

/// What the kernel tells of a process in one line: the state, the parent, …; empty if it is gone.
fn stat(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // They are behind the name, which may contain anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Seconds that a process has computed so far, all its threads together, those that have ended included; 0 if it is gone. The
/// kernel counts hundredths.
pub fn cpu_seconds(pid: i32) -> f64 {
    let stat = stat(pid);
    let ticks = |field: usize| stat.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    // The kernel shows a hundred ticks a second on all its architectures (USER_HZ).
    (ticks(11) + ticks(12)) / 100.0
}

/// What a process calls itself, its arguments included; empty if it is gone.
pub fn title(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ").trim_end().to_owned()
}

/// Resident memory of a process that is its own (shared memory left out), in bytes; 0 if it is gone.
pub fn resident_bytes(pid: i32) -> u64 {
    status(pid, "RssAnon:") * 1024
}

/// How often the main thread of a process has gone to sleep by itself; 0 if it is gone.
pub fn sleeps(pid: i32) -> u64 {
    status(pid, "voluntary_ctxt_switches:")
}

/// The number that the kernel gives in a line of a process's status; 0 if it is gone.
fn status(pid: i32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = status.lines().find_map(|found| found.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
