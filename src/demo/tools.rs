//! PostgreSQL's programs and a Python with the drivers, as this machine has them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the demo runs of PostgreSQL.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "pgbench"];

/// The oldest PostgreSQL that execpool is tested with.
const OLDEST: u32 = 15;

/// Where distributions put a version's programs: below one of these, in `*/bin`.
const PREFIXES: [&str; 3] = [
    "/usr/lib/postgresql",
    "/usr/local/pgsql",
    "/opt/homebrew/opt",
];

/// Fails unless the drivers that the agents use are there.
const IMPORTS: &str = "\
import sys
missing = []
if sys.version_info < (3, 10): missing.append('Python 3.10 (it is ' + sys.version.split()[0] + ')')
for name in 'psycopg', 'sqlalchemy':
    try: __import__(name)
    except ImportError: missing.append(name)
print(' and '.join(missing))
sys.exit(bool(missing))";

/// The environment of the demo, by name and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment<'a>(pub(super) &'a [(String, String)]);

impl<'a> Environment<'a> {
    /// The value of a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(given, _)| given == name)?;
        (!value.is_empty()).then_some(value)
    }

    fn path(&self) -> impl Iterator<Item = PathBuf> + use<'a> {
        std::env::split_paths(self.get("PATH").unwrap_or_default())
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        self.path()
            .map(|folder| folder.join(program))
            .find(|path| runs(path))
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    postgres: PathBuf,
    /// A python3 with psycopg and SQLAlchemy.
    pub(super) python: PathBuf,
}

/// What is missing, a sentence each, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("the demo can't run on this machine:\n  {}", .0.join("\n  "))]
pub(super) struct Missing(pub(super) Vec<String>);

impl Tools {
    /// Looks for all of them, and tells of all that are missing at once.
    pub(super) fn find(environment: Environment<'_>) -> Result<Self, Missing> {
        match (find_postgres(environment), find_python(environment)) {
            (Ok(postgres), Ok(python)) => Ok(Self { postgres, python }),
            (postgres, python) => Err(Missing(
                [postgres.err(), python.err()]
                    .into_iter()
                    .flatten()
                    .collect(),
            )),
        }
    }

    /// One of PostgreSQL's programs.
    pub(super) fn postgres(&self, program: &str) -> PathBuf {
        self.postgres.join(program)
    }
}

fn find_postgres(environment: Environment<'_>) -> Result<PathBuf, String> {
    if let Some(folder) = environment.get("EXECPOOL_PG_BIN") {
        let folder = PathBuf::from(folder);
        return match complaint(&folder) {
            None => Ok(folder),
            Some(why) => Err(format!("EXECPOOL_PG_BIN={}: {why}", folder.display())),
        };
    }
    let mut near = Vec::new();
    for folder in postgres_folders(environment) {
        match complaint(&folder) {
            None => return Ok(folder),
            Some(why) if folder.join("postgres").exists() => {
                near.push(format!(" ({}: {why})", folder.display()));
            }
            Some(_) => {}
        }
    }
    Err(format!(
        "PostgreSQL {OLDEST} or newer with {}{}: install it with `apt-get install postgresql` \
         or set EXECPOOL_PG_BIN to the directory of its programs",
        PROGRAMS.join(", "),
        near.concat()
    ))
}

/// Directories that may hold PostgreSQL's programs, the most wanted first.
fn postgres_folders(environment: Environment<'_>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for program in ["postgres", "pg_ctl"] {
        // A link leads to where the other programs are.
        let real = environment
            .find(program)
            .and_then(|path| path.canonicalize().ok());
        folders.extend(real.and_then(|path| path.parent().map(Path::to_owned)));
    }
    if let Some(config) = environment.find("pg_config")
        && let Some(folder) = first_line(Command::new(config).arg("--bindir"))
    {
        folders.push(PathBuf::from(folder));
    }
    let mut versions: Vec<PathBuf> = PREFIXES
        .iter()
        .filter_map(|prefix| std::fs::read_dir(prefix).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.push(PathBuf::from("/usr/local/pgsql/bin"));
    versions.sort_by_key(|folder| std::cmp::Reverse(major(folder)));
    folders.extend(versions);
    folders
}

/// Why a directory will not do.
fn complaint(folder: &Path) -> Option<String> {
    let lacking: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| !runs(&folder.join(program)))
        .collect();
    if !lacking.is_empty() {
        return Some(format!("there is no {}", lacking.join(", ")));
    }
    match major(folder) {
        Some(major) if major >= OLDEST => None,
        Some(major) => Some(format!("it is PostgreSQL {major}")),
        None => Some("its postgres does not run".to_owned()),
    }
}

/// The major version of the PostgreSQL in a directory.
fn major(folder: &Path) -> Option<u32> {
    let version = first_line(Command::new(folder.join("postgres")).arg("--version"))?;
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

fn find_python(environment: Environment<'_>) -> Result<PathBuf, String> {
    const ADVICE: &str = "make one with `python3 -m venv v && v/bin/pip install 'psycopg[binary]' \
                          sqlalchemy` and set EXECPOOL_PYTHON=v/bin/python3";
    let (path, named) = match environment.get("EXECPOOL_PYTHON") {
        Some(path) => (Some(PathBuf::from(path)), "EXECPOOL_PYTHON="),
        None => (environment.find("python3"), ""),
    };
    let wanted = "a python3 with psycopg and sqlalchemy";
    let Some(path) = path else {
        return Err(format!("{wanted}: {ADVICE}"));
    };
    let shown = format!("{named}{}", path.display());
    match Command::new(&path).args(["-c", IMPORTS]).output() {
        Ok(output) if output.status.success() => Ok(path),
        Ok(output) => {
            let lacking = String::from_utf8_lossy(&output.stdout);
            Err(format!(
                "{wanted} ({shown} lacks {}): {ADVICE}",
                lacking.trim()
            ))
        }
        Err(error) => Err(format!("{wanted} ({shown}: {error}): {ADVICE}")),
    }
}

fn runs(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}
