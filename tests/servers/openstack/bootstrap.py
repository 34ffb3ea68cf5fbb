"""Create the first state of Keystone or Barbican: its database and its keys.

No server runs meanwhile. The configuration is found as in serve.py. What the
rig must know of the state is written as JSON to --identity.
"""

import argparse
import contextlib
import json
import os
import secrets
import sqlite3
import sys
import uuid

_REGION = "RegionOne"
_INTERFACES = ("public", "internal", "admin")
# serve.py writes the true addresses when it starts.
_ADDRESS_UNTIL_SERVED = "https://127.0.0.1:1"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=("keystone", "barbican"))
    parser.add_argument("--database", required=True, help="sqlite file that the configuration names")
    parser.add_argument("--identity", required=True, help="JSON file to write")
    options = parser.parse_args()
    # Keystone hands sys.argv to its own option parser.
    del sys.argv[1:]
    identity = _keystone() if options.service == "keystone" else _barbican()
    _let_readers_pass_the_writer(options.database)
    descriptor = os.open(options.identity, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(identity, file, indent=2)


def _keystone():
    import keystone.conf
    import keystone.server
    from keystone.cmd import bootstrap
    from keystone.common import provider_api
    from keystone.common.sql import upgrades
    from keystone.server.flask import core

    keystone.server.configure(config_files=core._get_config_files())
    upgrades.offline_sync_database_to_version()
    _create_keystone_keys(keystone.conf.CONF)

    first = bootstrap.Bootstrapper()
    first.admin_username = "admin"
    first.admin_password = secrets.token_urlsafe(24)
    first.admin_role_name = "admin"
    first.project_name = "admin"
    first.service_name = "keystone"
    first.region_id = _REGION
    first.immutable_roles = True
    first.public_url = first.internal_url = first.admin_url = _ADDRESS_UNTIL_SERVED
    first.bootstrap()

    providers = provider_api.ProviderAPIs
    service_password = secrets.token_urlsafe(24)
    _create_barbican_account(providers, service_password, first.service_role_id)
    _create_barbican_endpoints(providers)
    return {
        "region": _REGION,
        "admin_password": first.admin_password,
        "barbican_password": service_password,
        "member_role_id": first.member_role_id,
        "reader_role_id": first.reader_role_id,
    }


def _create_keystone_keys(conf):
    from keystone.common import fernet_utils

    for group, active in (
        ("fernet_tokens", conf.fernet_tokens.max_active_keys),
        ("fernet_receipts", conf.fernet_receipts.max_active_keys),
        ("credential", 3),
    ):
        keys = fernet_utils.FernetUtils(conf[group].key_repository, active, group)
        keys.create_key_directory()
        keys.initialize_key_repository()


def _create_barbican_account(providers, password, role_id):
    project = {
        "id": uuid.uuid4().hex,
        "name": "service",
        "domain_id": "default",
        "description": "",
        "enabled": True,
    }
    providers.resource_api.create_project(project["id"], project)
    user = providers.identity_api.create_user(
        {"name": "barbican", "domain_id": "default", "password": password, "enabled": True}
    )
    providers.assignment_api.create_grant(role_id, user_id=user["id"], project_id=project["id"])


def _create_barbican_endpoints(providers):
    service = {
        "id": uuid.uuid4().hex,
        "type": "key-manager",
        "name": "barbican",
        "enabled": True,
    }
    providers.catalog_api.create_service(service["id"], service)
    for interface in _INTERFACES:
        endpoint = {
            "id": uuid.uuid4().hex,
            "interface": interface,
            "region_id": _REGION,
            "service_id": service["id"],
            "url": _ADDRESS_UNTIL_SERVED,
            "enabled": True,
        }
        providers.catalog_api.create_endpoint(endpoint["id"], endpoint)


def _barbican():
    from barbican.model.migration import commands
    from cryptography.fernet import Fernet

    commands.upgrade()
    return {"kek": Fernet.generate_key().decode()}


def _let_readers_pass_the_writer(database):
    # The mode is kept in the file.
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


if __name__ == "__main__":
    main()
