//! The changes that the tool makes to a workspace.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId, Source};

use crate::Result;
use crate::copy::{self, Std, failed};
use crate::manifest;

/// The folder of the copies, in the root of the workspace.
const FOLDER: &str = "vendor-plainsong";
/// The file of a copy that has the checksum of its original.
const CHECKSUM: &str = ".plainsong-checksum";

const NO_STD: &str = "the workspace does not depend on plainsong-std. Add it first, such as

    [dependencies]
    std = { package = \"plainsong-std\", version = \"0.1\" }

to a package's Cargo.toml: the copies use it from there";

/// Crates that must not be built on plainsong-std.
const UNFIT: &[(&str, &str)] = &[
    ("crossbeam-utils", "its scope relies on waits and joins that do not unwind"),
    ("rayon-core", "its jobs borrow, and it relies on waits that do not unwind"),
    ("scoped_threadpool", "its jobs borrow, and it relies on channels that do not unwind"),
    ("parking_lot_core", "it waits in the kernel, and not through std"),
    // The thread-locals of a copy end with their coroutine. But what is not `Send` may be handed to
    // another coroutine of the same thread, and live on.
    ("parking_lot", "its ReentrantMutex tells threads apart by the address of a thread-local"),
    ("thread_local", LEAVES_ITS_PLACE),
    ("state", LEAVES_ITS_PLACE),
    ("seize", LEAVES_ITS_PLACE),
    ("sdd", LEAVES_ITS_PLACE),
    ("jni", "a coroutine that ends would detach its thread from the JVM, which others still use"),
    // And what is not `Sync` is shared by the coroutines of a thread.
    ("qcell", "each coroutine would have a TLCellOwner of its own for the cells of all"),
];
const LEAVES_ITS_PLACE: &str = "a coroutine that ends would leave its place to one of another \
                                thread, while others of its own may still use what is there";

/// Crates whose copies need a copy of another crate for themselves, which nothing else uses.
const COMPANIONS: &[(&str, &str)] = &[
    // It waits for other threads with the `Backoff` of crossbeam-utils, which yields to them.
    ("crossbeam-channel", "crossbeam-utils"),
];

/// The crates that a copy of `package` has for itself.
fn companions<'a>(metadata: &'a Metadata, package: &Package) -> Vec<&'a Package> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let needed: Vec<_> =
        nodes.filter(|node| node.id == package.id).flat_map(|node| &node.dependencies).collect();
    let is_companion = |name: &str| COMPANIONS.contains(&(package.name.as_str(), name));
    let needs = |other: &&Package| needed.contains(&&other.id) && is_companion(&other.name);
    metadata.packages.iter().filter(needs).collect()
}

fn metadata(manifest: Option<&Path>, with_dependencies: bool) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    if let Some(manifest) = manifest {
        command.manifest_path(manifest);
    }
    if !with_dependencies {
        command.no_deps();
    }
    command.exec().map_err(|error| error.to_string().trim_end().to_owned())
}

/// Replaces crates by copies that have plainsong-std as their `std`.
pub(crate) fn vendor(manifest_path: Option<&Path>, crates: &[String]) -> Result<Vec<String>> {
    let metadata = metadata(manifest_path, true)?;
    let std = find_std(&metadata)?;
    let packages: Vec<_> =
        crates.iter().map(|wanted| find(&metadata, wanted)).collect::<Result<_>>()?;
    if let Some(package) = packages.iter().find(|package| std_needs(&metadata, &package.id)) {
        return Err(format!("plainsong-std itself needs {}, which cannot need it", package.name));
    }
    let root = metadata.workspace_root.as_std_path();
    let change = Change::new(root)?;
    let mut made = Vec::new();
    let done = packages.iter().try_for_each(|package| {
        let to = root.join(FOLDER).join(format!("{}-{}", package.name, package.version));
        if to.exists() {
            return Err(format!(
                "{} is in the way: take it away with `cargo plainsong undo {}`, or by hand",
                to.display(),
                package.name
            ));
        }
        made.push(to.clone());
        copy_package(package, &to, &std, root)?;
        companions(&metadata, package)
            .iter()
            .try_for_each(|other| copy::add_companion(folder(other), &other.name, &to, &std))
    });
    let done = done.and_then(|()| check(manifest_path, &packages));
    match done {
        Ok(()) => Ok(packages.iter().map(|package| report(package)).collect()),
        Err(error) => {
            change.undo()?;
            for copy in made {
                // It may not have been made.
                let _ = fs::remove_dir_all(copy);
            }
            let _ = fs::remove_dir(root.join(FOLDER));
            Err(error)
        }
    }
}

fn folder(package: &Package) -> &Path {
    package.manifest_path.parent().map_or(Path::new(""), |folder| folder.as_std_path())
}

fn report(package: &Package) -> String {
    let Package { name, version, .. } = package;
    format!("{name} {version} now has plainsong-std as its std: see {FOLDER}/{name}-{version}")
}

/// Copies the package, and has the workspace use the copy.
fn copy_package(package: &Package, to: &Path, std: &Std, root: &Path) -> Result<()> {
    let (name, version) = (&package.name, package.version.to_string());
    copy::make(folder(package), to, std).map_err(|error| format!("cannot copy {name}: {error}"))?;
    if let Ok(mut lock) = manifest::read(&root.join("Cargo.lock")) {
        if let Some(checksum) = manifest::checksum(&mut lock, name, &version) {
            let path = to.join(CHECKSUM);
            fs::write(&path, checksum).map_err(|error| failed("write", &path, error))?;
        }
    }
    let path = root.join("Cargo.toml");
    let mut document = manifest::read(&path)?;
    let place = format!("{FOLDER}/{name}-{version}");
    manifest::add_patch(&mut document, name, &version, &place);
    manifest::write(&path, &document)
}

/// Checks that cargo accepts the manifests and uses the copies.
fn check(manifest_path: Option<&Path>, packages: &[&Package]) -> Result<()> {
    let metadata = metadata(manifest_path, true)
        .map_err(|error| format!("cargo does not accept the copies, so they are gone: {error}"))?;
    for package in packages {
        let is_used = |other: &&Package| {
            other.name == package.name && other.version == package.version && other.source.is_none()
        };
        if !metadata.packages.iter().any(|other| is_used(&other)) {
            return Err(format!(
                "cargo does not use the copy of {} {}, so it is gone: does [patch] name another?",
                package.name, package.version
            ));
        }
    }
    Ok(())
}

/// Where the workspace has plainsong-std from.
fn find_std(metadata: &Metadata) -> Result<Std> {
    let package = metadata.packages.iter().find(|package| package.name == "plainsong-std");
    let package = package.ok_or(NO_STD)?;
    match package.source.as_ref().map(|source| source.repr.as_str()) {
        None => {
            let folder = package.manifest_path.parent().ok_or("a manifest without a folder")?;
            Ok(Std::Path(folder.into()))
        }
        Some(source) => match source.strip_prefix("git+").and_then(|git| git.split_once('#')) {
            Some((url, revision)) => {
                let url = url.split('?').next().unwrap_or(url);
                Ok(Std::Git { url: url.to_owned(), revision: revision.to_owned() })
            }
            None => Ok(Std::Version(package.version.to_string())),
        },
    }
}

/// Whether plainsong-std depends on this package.
fn std_needs(metadata: &Metadata, wanted: &PackageId) -> bool {
    let std = metadata.packages.iter().find(|package| package.name == "plainsong-std");
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let mut found: Vec<_> = std.into_iter().map(|package| &package.id).collect();
    let mut looked_at = 0;
    while let Some(&id) = found.get(looked_at) {
        looked_at += 1;
        for needed in
            nodes.clone().filter(|node| node.id == *id).flat_map(|node| &node.dependencies)
        {
            if !found.contains(&needed) {
                found.push(needed);
            }
        }
    }
    found.contains(&wanted)
}

/// The crate of crates.io that `wanted` names, with or without a version.
fn find<'a>(metadata: &'a Metadata, wanted: &str) -> Result<&'a Package> {
    let (name, version) = match wanted.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (wanted, None),
    };
    if ["plainsong", "plainsong-std", "plainsong-macros"].contains(&name) {
        return Err(format!("{name} is what the copies are built on: name another crate"));
    }
    if let Some((_, why)) = UNFIT.iter().find(|(unfit, _)| *unfit == name) {
        return Err(format!("{name} would be unsound as a copy, or useless: {why}"));
    }
    let named: Vec<_> = metadata.packages.iter().filter(|package| package.name == name).collect();
    let found: Vec<_> = named
        .iter()
        .filter(|package| version.is_none_or(|version| package.version.to_string() == version))
        .filter(|package| package.source.as_ref().is_some_and(Source::is_crates_io))
        .collect();
    match found[..] {
        [package] => Ok(package),
        [] => Err(match &named[..] {
            [] => format!(
                "there is no crate `{name}` among the dependencies of the workspace at {}: \
                 add it with `cargo add {name}`",
                metadata.workspace_root
            ),
            named if named.iter().all(|package| package.source.is_none()) => {
                format!("{name} is not from crates.io but from {}", named[0].manifest_path)
            }
            named => {
                let versions: Vec<_> =
                    named.iter().map(|package| package.version.to_string()).collect();
                format!("{wanted} is not there: the workspace has {name} {}", versions.join(", "))
            }
        }),
        _ => {
            let names: Vec<_> =
                found.iter().map(|package| format!("{name}@{}", package.version)).collect();
            Err(format!("there are several versions of {name}: name {}", names.join(" or ")))
        }
    }
}

/// Takes copies away.
pub(crate) fn undo(manifest_path: Option<&Path>, crates: &[String]) -> Result<Vec<String>> {
    let root: PathBuf = metadata(manifest_path, false)?.workspace_root.into();
    let path = root.join("Cargo.toml");
    let mut document = manifest::read(&path)?;
    let patches = manifest::patches(&document, FOLDER);
    for name in crates {
        if !patches.iter().any(|patch| patch.name == *name) {
            let names: Vec<_> = patches.iter().map(|patch| patch.name.as_str()).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!(
                "there is no copy of {name} in {}: there is {there}",
                path.display()
            ));
        }
    }
    let chosen = |name: &String| crates.is_empty() || crates.contains(name);
    let chosen: Vec<_> = patches.into_iter().filter(|patch| chosen(&patch.name)).collect();
    let lock_path = root.join("Cargo.lock");
    let mut lock = if lock_path.exists() { Some(manifest::read(&lock_path)?) } else { None };
    for patch in &chosen {
        let copy = root.join(&patch.path);
        let version = patch.path.rsplit('/').next().and_then(|folder| {
            folder.strip_prefix(&patch.name).and_then(|rest| rest.strip_prefix('-'))
        });
        if let (Some(lock), Some(version)) = (&mut lock, version) {
            if let Ok(checksum) = fs::read_to_string(copy.join(CHECKSUM)) {
                manifest::lock_again(lock, &patch.name, version, &checksum);
            }
        }
        manifest::remove_patch(&mut document, &patch.key);
    }
    manifest::write(&path, &document)?;
    if let Some(lock) = lock {
        manifest::write(&lock_path, &lock)?;
    }
    for patch in &chosen {
        let copy = root.join(&patch.path);
        if copy.exists() {
            fs::remove_dir_all(&copy).map_err(|error| failed("remove", &copy, error))?;
        }
    }
    // It stays if something else is in it.
    let _ = fs::remove_dir(root.join(FOLDER));
    // Cargo writes the lock file as it was.
    metadata(manifest_path, true).map_err(|error| format!("the copies are gone, but {error}"))?;
    Ok(chosen.iter().map(|patch| format!("{} is that of crates.io again", patch.name)).collect())
}

/// The files that a change touches, as they were.
struct Change(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Change {
    fn new(root: &Path) -> Result<Self> {
        let files = ["Cargo.toml", "Cargo.lock"].map(|name| root.join(name));
        let keep = |path: PathBuf| {
            let content = if path.exists() {
                Some(fs::read(&path).map_err(|error| failed("read", &path, error))?)
            } else {
                None
            };
            Ok((path, content))
        };
        files.into_iter().map(keep).collect::<Result<_>>().map(Self)
    }

    fn undo(self) -> Result<()> {
        for (path, content) in self.0 {
            match content {
                Some(content) => fs::write(&path, content),
                None if path.exists() => fs::remove_file(&path),
                None => Ok(()),
            }
            .map_err(|error| failed("restore", &path, error))?;
        }
        Ok(())
    }
}
