//! The sample shop, which this executable carries: its files, its environments, its images.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use pipeyard_api::deploys::EnvironmentsFile;

use super::ports::Ports;

/// Path, whether it is executable, content.
const FILES: &[(&str, bool, &[u8])] = include!(concat!(env!("OUT_DIR"), "/shop.rs"));
/// Makes the images of the shop from this machine's own files.
pub(super) const MAKE_IMAGES: &str = include_str!("../../../tests/images/make.sh");
/// The image that the shop is tested, packed and served in.
pub(super) const IMAGE: &str = "pipeyard/busybox:test";

/// A shop in a folder: the one of the command line, or the one that is carried, laid out below `dir`.
pub(super) fn lay_out(given: Option<&Path>, dir: &Path) -> anyhow::Result<PathBuf> {
    if let Some(shop) = given {
        let shop = fs::canonicalize(shop)
            .with_context(|| format!("there is no shop at {}", shop.display()))?;
        anyhow::ensure!(
            shop.join("envs.yml").is_file(),
            "{} is no shop: it has no envs.yml",
            shop.display()
        );
        return Ok(shop);
    }
    let shop = dir.join("sample-shop");
    for (name, executable, content) in FILES {
        let path = shop.join(name);
        let folder = path.parent().unwrap_or(&shop);
        let mode = if *executable { 0o755 } else { 0o644 };
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, content))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(shop)
}

/// The shop's environments, at the ports of this demo.
pub(super) fn environments(shop: &Path, ports: Ports) -> anyhow::Result<EnvironmentsFile> {
    let file = shop.join("envs.yml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut envs: EnvironmentsFile =
        serde_yaml::from_str(&text).with_context(|| format!("{} isn't right", file.display()))?;
    for environment in envs.environments.values_mut() {
        if let Some(endpoint) = &mut environment.provider.endpoint {
            *endpoint = format!("http://{}", ports.fleet());
        }
        for service in environment.services.values_mut() {
            service.listen = ports.of_service(service.listen);
        }
    }
    Ok(envs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carried_shop_is_the_shop_of_the_examples() {
        let dir = tempfile::tempdir().unwrap();
        let laid_out = lay_out(None, dir.path()).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/examples/shop");
        let same = std::process::Command::new("diff")
            .args(["-r"])
            .args([&example, &laid_out])
            .status()
            .unwrap();
        assert!(same.success());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o111;
        for (name, _, _) in FILES {
            assert_eq!(mode(&example.join(name)), mode(&laid_out.join(name)), "{name}");
        }
    }

    #[test]
    fn every_port_of_the_shop_follows_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let shop = lay_out(None, dir.path()).unwrap();
        let at = |first| environments(&shop, Ports::from(first)).unwrap();
        let listens = |envs: &EnvironmentsFile| -> Vec<u16> {
            let environments = envs.environments.values();
            environments.flat_map(|e| e.services.values().map(|s| s.listen)).collect()
        };
        let (usual, other) = (at(8470), at(9000));
        let moved: Vec<u16> = listens(&usual).iter().map(|port| port + 530).collect();
        assert_eq!(listens(&other), moved);
        for environment in other.environments.values() {
            assert_eq!(environment.provider.endpoint.as_deref(), Some("http://127.0.0.1:9001"));
        }
    }

    #[test]
    fn a_folder_without_a_shop_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let problem = lay_out(Some(dir.path()), dir.path()).unwrap_err();
        assert!(problem.to_string().contains("has no envs.yml"), "{problem}");
        assert!(lay_out(Some(&dir.path().join("none")), dir.path()).is_err());
    }
}
