//! Parameters: values that plugins and tools keep with a vhost or with the whole broker.
//!
//! Owns: the values, by component and name. What they mean is their owners' business; here they are JSON
//! that is given back as it came.
//! Bounds: [`PARAMETERS_MAX`], [`VALUE_BYTES_MAX`].
//! Spec: RabbitMQ, "Parameters and Policies".

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::definitions::{DefinitionStore, ParameterRecord};
use super::error::Error;
use super::events::EventHeaders;
use super::name::Name;
use super::vhost::Put;

/// Parameters of one broker, those of vhosts and global ones together; beyond it no more can be made.
pub(crate) const PARAMETERS_MAX: usize = 10_000;
/// Longest value, in bytes of JSON.
pub(crate) const VALUE_BYTES_MAX: usize = 64 * 1_024;

/// A value that is kept for somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameter {
    /// Whose it is; none if it is the whole broker's.
    pub vhost: Option<Name>,
    /// What it is for, as in `shovel`; empty for the whole broker's.
    pub component: String,
    /// Its name.
    pub name: String,
    /// The value as JSON.
    pub value: String,
}

/// Vhost, component and name.
type Key = (Option<Name>, String, String);

/// All parameters of a broker.
#[derive(Debug)]
pub struct Parameters {
    values: RwLock<BTreeMap<Key, String>>,
    store: DefinitionStore,
}

impl Parameters {
    pub(crate) fn new(store: DefinitionStore) -> Self {
        Self {
            values: RwLock::default(),
            store,
        }
    }

    /// All of them: the whole broker's first, then by vhost, component and name.
    #[must_use]
    pub fn all(&self) -> Vec<Parameter> {
        let values = self.values.read();
        let all = values
            .iter()
            .map(|((vhost, component, name), value)| Parameter {
                vhost: vhost.clone(),
                component: component.clone(),
                name: name.clone(),
                value: value.clone(),
            });
        all.collect()
    }

    /// The value of one; the whole broker's have no vhost and an empty component.
    #[must_use]
    pub fn get(&self, vhost: Option<&Name>, component: &str, name: &str) -> Option<String> {
        let key = (vhost.cloned(), component.to_owned(), name.to_owned());
        self.values.read().get(&key).cloned()
    }

    /// Sets one.
    ///
    /// # Errors
    /// If there are too many, or it cannot be written.
    pub fn put(&self, parameter: Parameter) -> Result<Put, Error> {
        if parameter.value.len() > VALUE_BYTES_MAX {
            return Err(Error::AccountLimitReached {
                limited: "parameter of that length",
                count_max: VALUE_BYTES_MAX,
            });
        }
        let Parameter {
            vhost,
            component,
            name,
            value,
        } = parameter;
        let mut values = self.values.write();
        let record = ParameterRecord {
            vhost: vhost.as_ref().map(|vhost| vhost.as_bytes().to_vec()),
            component: component.clone(),
            name: name.clone(),
            value: value.clone(),
        };
        let key = (vhost, component, name);
        let put = match values.contains_key(&key) {
            true => Put::Replaced,
            false => Put::Created,
        };
        if put == Put::Created && values.len() >= PARAMETERS_MAX {
            return Err(Error::AccountLimitReached {
                limited: "parameter",
                count_max: PARAMETERS_MAX,
            });
        }
        self.store.put_parameter(&record)?;
        self.store.tell("parameter.set", |headers| {
            describe(headers, &key);
            headers.text("value", &value);
        });
        values.insert(key, value);
        Ok(put)
    }

    /// Forgets one; false if there is none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn delete(&self, vhost: Option<&Name>, component: &str, name: &str) -> Result<bool, Error> {
        let mut values = self.values.write();
        let key = (vhost.cloned(), component.to_owned(), name.to_owned());
        if !values.contains_key(&key) {
            return Ok(false);
        }
        self.store.delete_parameter(vhost, component, name)?;
        self.store
            .tell("parameter.cleared", |headers| describe(headers, &key));
        values.remove(&key);
        Ok(true)
    }

    /// Forgets those of a vhost that is deleted.
    pub(crate) fn forget_vhost(&self, vhost: &Name) -> Result<(), Error> {
        let of_vhost = |parameter: &Parameter| parameter.vhost.as_ref() == Some(vhost);
        for parameter in self.all().into_iter().filter(of_vhost) {
            self.delete(Some(vhost), &parameter.component, &parameter.name)?;
        }
        Ok(())
    }

    pub(crate) fn restore(&self, record: ParameterRecord) {
        let vhost = record.vhost.as_deref().map(Name::new);
        let key = (vhost, record.component, record.name);
        self.values.write().insert(key, record.value);
    }
}

/// What an event says of a parameter; a global one has neither vhost nor component.
fn describe(headers: &mut EventHeaders, key: &(Option<Name>, String, String)) {
    let (vhost, component, name) = key;
    if let Some(vhost) = vhost {
        headers
            .text("vhost", vhost.as_bytes())
            .text("component", component);
    }
    headers.text("name", name);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Global and vhosts' parameters with equal names are different ones, and a vhost takes its own along.
    #[test]
    fn a_parameter_is_found_by_vhost_component_and_name() {
        let parameters = Parameters::new(DefinitionStore::in_memory());
        let vhost = Name::from("v");
        let put = |vhost: Option<&Name>, component: &str, value: &str| {
            let parameter = Parameter {
                vhost: vhost.cloned(),
                component: component.to_owned(),
                name: "n".to_owned(),
                value: value.to_owned(),
            };
            parameters.put(parameter).expect("in memory")
        };
        assert_eq!(put(None, "", "1"), Put::Created);
        assert_eq!(put(Some(&vhost), "shovel", "2"), Put::Created);
        assert_eq!(put(Some(&vhost), "shovel", "3"), Put::Replaced);
        assert_eq!(parameters.get(None, "", "n").as_deref(), Some("1"));
        assert_eq!(
            parameters.get(Some(&vhost), "shovel", "n").as_deref(),
            Some("3")
        );
        parameters.forget_vhost(&vhost).expect("in memory");
        assert_eq!(parameters.all().len(), 1);
        assert!(
            !parameters
                .delete(Some(&vhost), "shovel", "n")
                .expect("in memory")
        );
    }
}
