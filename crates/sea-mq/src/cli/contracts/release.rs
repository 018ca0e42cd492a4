//! What was released: a directory as it was in another revision of its git repository, or another directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use sea_mq_contracts::set::ContractSet;

use super::directory;

pub enum Release {
    Known {
        name: String,
        contracts: ContractSet,
    },
    /// Why there is none to compare with.
    Unknown(String),
}

impl Release {
    pub fn contracts(&self) -> Option<&ContractSet> {
        match self {
            Self::Known { contracts, .. } => Some(contracts),
            Self::Unknown(_) => None,
        }
    }

    /// A revision, or a directory.
    pub fn named(directory: &Path, name: &str) -> Result<Self, String> {
        let other = Path::new(name);
        if other.is_dir() {
            return Ok(Self::Known { name: name.to_owned(), contracts: directory::read(other)? });
        }
        let commit = format!("{name}^{{commit}}");
        let commit = git(directory, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
            .map_err(|why| format!("\"{name}\" is neither a directory nor a revision here {why}"))?;
        let tree = tree(directory, commit.trim())?;
        let contracts = read(directory, &tree).map_err(|why| format!("{name} does not have the directory {why}"))?;
        Ok(Self::Known { name: name.to_owned(), contracts })
    }

    /// The last tag before HEAD that has the directory.
    pub fn last(directory: &Path) -> Result<Self, String> {
        // Not ordered by time, which may be the same for two, or wrong.
        let log = ["log", "--topo-order", "--simplify-by-decoration", "--decorate-refs=refs/tags/", "--format=%D"];
        let Ok(log) = git(directory, &log) else {
            return Ok(Self::Unknown("this is no git checkout, or has no commit".into()));
        };
        let tags = log.lines().flat_map(|line| line.split(", ")).filter_map(|name| name.strip_prefix("tag: "));
        for tag in tags {
            let tree = tree(directory, &format!("refs/tags/{tag}"))?;
            if git(directory, &["cat-file", "-e", &tree]).is_ok() {
                return Ok(Self::Known { name: tag.to_owned(), contracts: read(directory, &tree)? });
            }
        }
        Ok(Self::Unknown("no tag before HEAD has the directory".into()))
    }
}

/// The name of the directory in a revision.
fn tree(directory: &Path, revision: &str) -> Result<String, String> {
    let prefix = git(directory, &["rev-parse", "--show-prefix"])?;
    Ok(format!("{revision}:{}", prefix.trim_end_matches('\n').trim_end_matches('/')))
}

fn read(directory: &Path, tree: &str) -> Result<ContractSet, String> {
    let listing = git(directory, &["ls-tree", "-r", "-z", "--full-tree", tree])?;
    let mut files = Vec::new();
    for entry in listing.split('\0') {
        let Some((about, path)) = entry.split_once('\t') else { continue };
        let hidden = path.split('/').any(|part| part.starts_with('.'));
        let about: Vec<&str> = about.split(' ').collect();
        if let (false, true, [_, "blob", object]) = (hidden, path.ends_with(".json"), &about[..]) {
            files.push((path.to_owned(), (*object).to_owned()));
        }
    }
    contents(directory, &files).map_err(|error| format!("(git cat-file: {error})"))
}

/// All files through one process, each asked for when the one before has been read.
fn contents(directory: &Path, files: &[(String, String)]) -> std::io::Result<ContractSet> {
    let mut set = ContractSet::default();
    let mut git = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let (Some(mut asked), Some(answers)) = (git.stdin.take(), git.stdout.take()) {
        let mut answers = BufReader::new(answers);
        for (path, object) in files {
            writeln!(asked, "{object}")?;
            asked.flush()?;
            let mut header = String::new();
            answers.read_line(&mut header)?;
            let size = header.trim_end().rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
            let size = size.ok_or_else(|| std::io::Error::other(format!("{path}: {header}")))?;
            // A line feed follows the content.
            let mut content = vec![0; size + 1];
            answers.read_exact(&mut content)?;
            set.add(path, &content[..size]);
        }
    }
    git.wait()?;
    Ok(set)
}

/// What a git command prints, or what it complains about.
fn git(directory: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("(git: {error})"))?;
    if !output.status.success() {
        return Err(format!("(git {}: {})", arguments[0], String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| "(git: a name is not UTF-8)".into())
}
