//! Finds a program before it is spawned, so that what is wrong can be said in plain words.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where the process begins: the scratch directory, or what the spec says, seen from there.
pub(super) fn directory(scratch: &Path, cwd: &str) -> Result<PathBuf, String> {
    if cwd.is_empty() {
        return Ok(scratch.to_owned());
    }
    let dir = scratch.join(cwd);
    match fs::metadata(&dir) {
        Ok(found) if !found.is_dir() => Err(format!("`{cwd}` is not a directory")),
        Ok(_) if access(&dir, Access::EXEC_OK).is_err() => Err(format!(
            "permission denied: the agent may not enter `{cwd}`"
        )),
        Ok(_) => Ok(dir),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => format!("no such directory `{cwd}`"),
            ErrorKind::PermissionDenied => {
                format!("permission denied: the agent may not enter `{cwd}`")
            }
            _ => format!("directory `{cwd}`: {error}"),
        }),
    }
}

/// The program's path. A name with a slash is seen from `dir`, any other is looked up in `path`.
pub(super) fn find(name: &str, dir: &Path, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let program = dir.join(name);
        return match check(&program) {
            Candidate::Runs => Ok(program),
            Candidate::Missing => Err(format!("no such program `{name}`")),
            Candidate::Refused(why) => Err(why),
        };
    }
    let mut refused = None;
    for folder in std::env::split_paths(OsStr::new(path)) {
        let program = dir.join(folder).join(name);
        match check(&program) {
            Candidate::Runs => return Ok(program),
            Candidate::Missing => {}
            Candidate::Refused(why) => {
                refused.get_or_insert(why);
            }
        }
    }
    Err(refused.unwrap_or_else(|| format!("no such program `{name}` in PATH ({path})")))
}

enum Candidate {
    Runs,
    Missing,
    Refused(String),
}

fn check(program: &Path) -> Candidate {
    let shown = program.display();
    match fs::metadata(program) {
        Ok(found) if found.is_dir() => Candidate::Refused(format!("`{shown}` is a directory")),
        Ok(_) if access(program, Access::EXEC_OK).is_err() => Candidate::Refused(format!(
            "permission denied: `{shown}` is not executable for the agent"
        )),
        Ok(_) => Candidate::Runs,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Candidate::Refused(format!(
            "permission denied: the agent may not look at `{shown}`"
        )),
        Err(_) => Candidate::Missing,
    }
}

/// Why the kernel would not run a program that exists.
pub(super) fn explain(program: &Path, error: &io::Error) -> String {
    let shown = program.display();
    match error.kind() {
        ErrorKind::NotFound => {
            format!("`{shown}` needs an interpreter or loader that does not exist here")
        }
        ErrorKind::PermissionDenied => format!("permission denied: can't execute `{shown}`"),
        ErrorKind::ArgumentListTooLong => {
            "the command line and environment are longer than this machine allows".to_owned()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("`{shown}` is not a program that this machine can execute")
        }
        _ => format!("can't start `{shown}`: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_program_or_directory_is_said_in_plain_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        fs::write(dir.path().join("plain"), "hello").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let find = |name: &str| find(name, dir.path(), &path).unwrap_err();
        assert!(find("nonesuch").contains("no such program `nonesuch` in PATH"));
        assert!(find("./nonesuch").contains("no such program `./nonesuch`"));
        assert!(find("plain").contains("permission denied"));
        assert!(find("./folder").contains("is a directory"));
        let directory = |cwd: &str| directory(dir.path(), cwd).unwrap_err();
        assert_eq!(
            directory("/nowhere/at/all"),
            "no such directory `/nowhere/at/all`"
        );
        assert_eq!(directory("plain"), "`plain` is not a directory");
    }

    #[test]
    fn a_program_is_found_by_path_by_name_and_relative_to_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::write(&own, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("/nowhere:{}:/bin", dir.path().display());
        assert_eq!(find("own", Path::new("/"), &path), Ok(own.clone()));
        assert_eq!(
            find("./own", dir.path(), "/bin"),
            Ok(dir.path().join("./own"))
        );
        assert_eq!(
            find(&own.display().to_string(), Path::new("/"), ""),
            Ok(own)
        );
        assert!(find("sh", Path::new("/"), &path).is_ok());
    }
}
