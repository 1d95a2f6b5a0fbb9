"""What the guide shows is what the lab runs, in both languages."""

from pathlib import Path

from lab.balancers import GUIDE, snippets
from ukihashi.config.hub import HubConfig, load_hub


def test_both_languages_of_the_guide_show_the_same_configurations() -> None:
    found = snippets()
    assert set(found) == {
        "/etc/ukihashi/hub.toml",
        "/etc/haproxy/haproxy.cfg",
        "/etc/nginx/nginx.conf",
        "/etc/nginx/sites-enabled/www",
    }
    assert snippets(GUIDE.with_name("behind-others.ja.md")) == found


def test_what_the_guide_writes_into_hub_toml_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    for text in snippets()["/etc/ukihashi/hub.toml"]:
        path.write_text(text)
        assert load_hub(path) != HubConfig()
