//! The socket directory, claimed for one process, and the sockets in it.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group, getuid};

use super::ListenError;

/// The longest path that `sockaddr_un` holds, less its zero byte.
const MAX_PATH: usize = 107;

/// Who may connect to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Its permissions.
    pub mode: u32,
    /// Its group, by name or number; the process's own without.
    pub group: Option<String>,
}

/// A socket directory that no other execpool uses, for as long as this is kept.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked; the operating system unlocks it with the process's end, however that comes.
    _lock: File,
}

/// A socket that is listened on. Dropped, it is removed, unless another has taken its place.
#[derive(Debug)]
pub struct BoundSocket {
    path: PathBuf,
    inode: u64,
}

impl Directory {
    /// Claims a directory.
    ///
    /// # Errors
    /// It is missing, not writable, or another execpool's.
    pub fn claim(path: &Path) -> Result<Self, ListenError> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(ListenError::NotADirectory(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ListenError::Missing(path.to_owned()));
            }
            Err(source) => return Err(not_writable(path, source)),
        }
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("execpool.lock"))
            .map_err(|source| not_writable(path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ListenError::InUse {
                    dir: path.to_owned(),
                    pid: written_pid(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(not_writable(path, source)),
        }
        // For whoever finds it locked; without it the message only names no process.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Listens on a socket in the directory. One that nobody listens on any more is replaced.
    /// Nobody can connect before it has its permissions.
    ///
    /// # Errors
    /// Something listens on it, is in its way, or the operating system refuses.
    pub fn bind(
        &self,
        name: &str,
        access: &Access,
    ) -> Result<(UnixListener, BoundSocket), ListenError> {
        let path = self.path.join(name);
        if path.as_os_str().len() > MAX_PATH {
            return Err(ListenError::TooLong(path));
        }
        refuse_if_live(&path)?;
        let group = access.group.as_deref().map(find_group).transpose()?;
        let failed = |source| ListenError::Failed {
            path: path.clone(),
            source,
        };
        // Made where only we can reach it, then moved into place.
        let nursery = self.path.join(".x");
        let _ = fs::remove_dir_all(&nursery);
        fs::create_dir(&nursery).map_err(|source| not_writable(&self.path, source))?;
        let made = self.make(&nursery, &path, access.mode, group);
        let _ = fs::remove_dir_all(&nursery);
        let (listener, inode) = made.map_err(failed)?;
        Ok((listener, BoundSocket { path, inode }))
    }

    fn make(
        &self,
        nursery: &Path,
        path: &Path,
        mode: u32,
        group: Option<Gid>,
    ) -> io::Result<(UnixListener, u64)> {
        fs::set_permissions(nursery, Permissions::from_mode(0o700))?;
        let young = nursery.join("s");
        let listener = UnixListener::bind(&young)?;
        listener.set_nonblocking(true)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&young, None, Some(group.as_raw()))?;
        }
        fs::set_permissions(&young, Permissions::from_mode(mode))?;
        let inode = fs::metadata(&young)?.ino();
        fs::rename(&young, path)?;
        Ok((listener, inode))
    }
}

impl BoundSocket {
    /// Lets others connect than before; who has connected stays.
    ///
    /// # Errors
    /// There is no such group, or the operating system refuses.
    pub fn permit(&self, access: &Access) -> Result<(), ListenError> {
        let group = access.group.as_deref().map(find_group).transpose()?;
        let path = &self.path;
        let set_mode = |mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let done = usual_group(path).and_then(|usual| {
            let group = group.map_or(usual, Gid::as_raw);
            if fs::metadata(path)?.gid() != group {
                // Nobody comes in between the two who may come in neither before nor after.
                set_mode(access.mode & 0o600)?;
                std::os::unix::fs::chown(path, None, Some(group))?;
            }
            set_mode(access.mode)
        });
        done.map_err(|source| ListenError::Failed {
            path: path.clone(),
            source,
        })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The group that a file has which is made beside this one.
fn usual_group(path: &Path) -> io::Result<u32> {
    const SETGID: u32 = 0o2000;
    let dir = fs::metadata(path.parent().unwrap_or(path))?;
    Ok(match dir.mode() & SETGID {
        0 => nix::unistd::getegid().as_raw(),
        _ => dir.gid(),
    })
}

/// Who connects to a live socket is told so; a dead one refuses.
fn refuse_if_live(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let peer = getsockopt(&stream, PeerCredentials).ok();
            Err(ListenError::Live {
                path: path.to_owned(),
                pid: peer.map(|peer| peer.pid()).filter(|pid| *pid > 0),
            })
        }
        Err(_) => Ok(()),
    }
}

fn find_group(name: &str) -> Result<Gid, ListenError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        _ => Err(ListenError::NoGroup(name.to_owned())),
    }
}

fn written_pid(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn not_writable(dir: &Path, source: io::Error) -> ListenError {
    ListenError::NotWritable {
        dir: dir.to_owned(),
        uid: getuid().as_raw(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access {
        mode: 0o660,
        group: None,
    };

    fn said(result: Result<impl std::fmt::Debug, ListenError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_socket_has_its_permissions_and_goes_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::claim(dir.path()).unwrap();
        let (_listener, bound) = directory.bind("s", &ACCESS).unwrap();
        let path = dir.path().join("s");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
        assert!(!dir.path().join(".x").exists());
    }

    #[test]
    fn a_socket_takes_other_permissions_and_refuses_a_group_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::claim(dir.path()).unwrap();
        let (_listener, bound) = directory.bind("s", &ACCESS).unwrap();
        let wide = Access {
            mode: 0o666,
            group: None,
        };
        bound.permit(&wide).unwrap();
        let mode = || {
            fs::metadata(dir.path().join("s"))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode() & 0o777, 0o666);
        let nobody = Access {
            group: Some("no such group".to_owned()),
            ..ACCESS
        };
        assert!(said(bound.permit(&nobody)).contains("no such group"));
        assert_eq!(mode() & 0o777, 0o666);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::claim(dir.path()).unwrap();
        drop(UnixListener::bind(dir.path().join("stale")).unwrap());
        directory.bind("stale", &ACCESS).unwrap();
        let _live = UnixListener::bind(dir.path().join("live")).unwrap();
        let refused = said(directory.bind("live", &ACCESS));
        let own = format!("(process {})", std::process::id());
        assert!(
            refused.contains("in use") && refused.contains(&own),
            "{refused}"
        );
    }

    #[test]
    fn what_another_execpool_uses_is_refused_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Directory::claim(dir.path()).unwrap();
        let refused = said(Directory::claim(dir.path()));
        let own = format!("another execpool (process {})", std::process::id());
        assert!(refused.starts_with(&own), "{refused}");
    }

    #[test]
    fn each_mistake_has_its_own_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let missing = said(Directory::claim(&dir.path().join("missing")));
        assert!(missing.contains("does not exist"), "{missing}");
        fs::write(dir.path().join("file"), "").unwrap();
        let file = said(Directory::claim(&dir.path().join("file")));
        assert!(file.contains("not a directory"), "{file}");
        let directory = Directory::claim(dir.path()).unwrap();
        let in_the_way = said(directory.bind("file", &ACCESS));
        assert!(in_the_way.contains("not a socket"), "{in_the_way}");
        let long = said(directory.bind(&"x".repeat(120), &ACCESS));
        assert!(long.contains("may have 107"), "{long}");
        let group = Access {
            group: Some("no such group".to_owned()),
            ..ACCESS
        };
        let nobody = said(directory.bind("s", &group));
        assert!(nobody.contains("no such group"), "{nobody}");
    }
}
