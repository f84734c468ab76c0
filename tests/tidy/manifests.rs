//! Every Cargo.toml of the workspace, read as far as the rules need it.

use crate::files;
use toml::{Table, Value};

/// A dependency.
pub struct Dependency {
    /// Package.
    pub name: String,
    /// Features asked for beyond the defaults, here and in the workspace's list.
    pub features: Vec<String>,
    /// For tests only.
    pub dev: bool,
}

/// A member of the workspace, the root included.
pub struct Manifest {
    /// Its name.
    pub package: String,
    /// Its folder; `.` for the root.
    pub folder: String,
    /// `[lints] workspace = true`.
    pub inherits_lints: bool,
    /// What its default features enable.
    pub defaults: Vec<String>,
    /// All of its dependencies.
    pub dependencies: Vec<Dependency>,
}

/// All members.
pub fn all() -> Vec<Manifest> {
    let root = table(".");
    let members = root["workspace"]["members"].as_array().expect("members");
    let folders = members.iter().map(|member| member.as_str().expect("a folder"));
    std::iter::once(".").chain(folders).map(|folder| member(folder, &root)).collect()
}

/// Names in the list of the workspace's dependencies.
pub fn workspace_dependencies() -> Vec<String> {
    let root = table(".");
    let list = root["workspace"]["dependencies"].as_table().expect("a table");
    list.keys().cloned().collect()
}

fn table(folder: &str) -> Table {
    let path = if folder == "." { "Cargo.toml".to_owned() } else { format!("{folder}/Cargo.toml") };
    toml::from_str(&files::read(&path).text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn member(folder: &str, root: &Table) -> Manifest {
    let table = table(folder);
    let package = table["package"]["name"].as_str().expect("a name").to_owned();
    let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
    let defaults = table.get("features").and_then(|features| features.get("default"));
    let mut dependencies = Vec::new();
    // Tables for one target hold dependencies too; so do the tables below `[target]`.
    let mut scopes = vec![&table];
    let targets = table.get("target").and_then(Value::as_table);
    scopes.extend(targets.iter().flat_map(|t| t.values()).filter_map(Value::as_table));
    for scope in scopes {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let listed = scope.get(kind).and_then(Value::as_table);
            for (name, value) in listed.into_iter().flatten() {
                let shared = root["workspace"]["dependencies"].get(name);
                let mut features = features_of(value);
                features.extend(shared.map(features_of).unwrap_or_default());
                let dev = kind == "dev-dependencies";
                dependencies.push(Dependency { name: name.clone(), features, dev });
            }
        }
    }
    Manifest {
        package,
        folder: folder.to_owned(),
        inherits_lints: lints.and_then(Value::as_bool) == Some(true),
        defaults: defaults.map(strings).unwrap_or_default(),
        dependencies,
    }
}

fn features_of(dependency: &Value) -> Vec<String> {
    dependency.get("features").map(strings).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
