"""What a person sees: Prefect's page of a train run shows the report's picture."""

import base64
import shutil

import pytest

from tests.conftest import Stack
from tests.flows.test_loop import champion, runs  # noqa: F401 -- a fixture

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.stack,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


def test_the_report_stands_on_the_runs_page(stack: Stack, champion: dict, tmp_path):  # noqa: F811
    """Opened in Chromium, the run's artifact page shows an image that has loaded."""
    from playwright.sync_api import sync_playwright
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    run = next(run for run in runs(stack, "train/thyroid") if "first.csv" in run.name)
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    report = next(artifact for artifact in found if artifact.key == "thyroid-report")
    secret = stack.settings.secret_file.read_text().strip()
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.add_init_script(
            f"localStorage.setItem('prefect-password', '{base64.b64encode(secret.encode()).decode()}')"
        )
        page.goto(f"{stack.urls['prefect']}/artifacts/artifact/{report.id}")
        picture = page.locator("img[src^='data:image/png']").first
        picture.wait_for(state="visible", timeout=60_000)
        width = picture.evaluate("image => image.naturalWidth")
        page.screenshot(path=tmp_path / "report.png")
        browser.close()
    assert width > 1000
