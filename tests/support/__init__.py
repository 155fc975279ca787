"""What several tests share: `from tests.support.needs import …`."""
