//! A terminal: tmux, with a server of its own that ends with the test.

use std::path::PathBuf;
use std::process::Command;

use crate::shared::{name, shared};

pub struct Terminal {
    socket: PathBuf,
    raw: PathBuf,
}

impl Terminal {
    /// Runs the command line with these variables set, and says how it ended.
    pub fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let directory = &shared().directory;
        let (socket, raw) = (directory.join(name("tmux")), directory.join(name("raw")));
        let quoted = arguments.iter().map(|one| format!("'{one}'")).collect::<Vec<_>>().join(" ");
        // It begins when everything that is written is kept.
        let line = format!(
            "echo before; read begin; '{}' {quoted}; echo \"ended $?\"; sleep 600",
            env!("CARGO_BIN_EXE_sea-mq")
        );
        let terminal = Self { socket, raw };
        let mut command =
            vec!["new-session".to_owned(), "-d".into(), "-x".into(), "100".into(), "-y".into(), "30".into()];
        for (name, value) in variables {
            command.extend(["-e".into(), format!("{name}={value}")]);
        }
        command.push(line);
        terminal.tmux(&command.iter().map(String::as_str).collect::<Vec<_>>());
        terminal.tmux(&["pipe-pane", &format!("cat > '{}'", terminal.raw.display())]);
        terminal.press("Enter");
        terminal
    }

    pub fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-S"])
            .arg(&self.socket)
            .args(arguments)
            .output()
            .expect("make setup installs tmux");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// What is seen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What is seen, with the marks for colours.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// All that was written, what is not seen any more as well.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.raw).unwrap_or_default()).into_owned()
    }

    pub fn until(&self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let screen = self.screen();
            if seen(&screen) {
                return screen;
            }
            assert!(std::time::Instant::now() < deadline, "in time: {what}:\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}
