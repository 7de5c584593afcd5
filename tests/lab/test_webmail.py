"""A person with a browser: Chromium, Roundcube with the rendered configuration, and the lab's mail server."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from components.webmail import image
from components.webmail.config import DATABASE_FILE
from tests.lab.support import Known, Log, arrives, lessons
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.paths import WEBMAIL
from tools.lab.webmail import Webmail
from tools.offline.stackfile import ROOT

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import TimeoutException  # noqa: E402 - selenium may be absent
from selenium.webdriver.common.by import By  # noqa: E402 - selenium may be absent
from selenium.webdriver.support import expected_conditions as seen  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs chromium and chromium-driver (tools/packages.sh)"),
    pytest.mark.xdist_group("webmail"),
    pytest.mark.once("a browser sees what IMAP, submission and ManageSieve do, which have tests of their own"),
]
PICTURES = ROOT / ".tools" / "lab" / "webmail"
PATIENCE = 60


@pytest.fixture(scope="module")
def webmail(lab: Lab) -> Iterator[Webmail]:
    with Webmail(lab) as webmail:
        yield webmail


@pytest.fixture(scope="module")
def driver(webmail: Webmail) -> Iterator[webdriver.Chrome]:
    """One browser for the module: cookies are deleted before each login."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.accept_insecure_certs = True  # the lab's authority is not among Chromium's
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which does not start as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,800",
        f"--host-resolver-rules=MAP {webmail.settings.host} {WEBMAIL}",
    ):
        options.add_argument(argument)
    with webmail.lab.outside():
        service = webdriver.ChromeService(str(DRIVER), env={**os.environ, "NO_PROXY": "*"})
        driver = webdriver.Chrome(options, service)
        try:
            yield driver
        finally:
            driver.quit()


class Person:
    """Someone at the browser. Waits end when something is there."""

    def __init__(self, webmail: Webmail, driver: webdriver.Chrome) -> None:
        self.webmail, self.driver = webmail, driver
        self.wait = WebDriverWait(driver, PATIENCE)
        self.base = f"https://{webmail.settings.host}/"

    def open(self, query: str = "") -> None:
        self.driver.get(self.base + query)

    def find(self, selector: str):
        return self._until(seen.visibility_of_element_located((By.CSS_SELECTOR, selector)), selector)

    def click(self, selector: str) -> None:
        self._until(seen.element_to_be_clickable((By.CSS_SELECTOR, selector)), selector).click()

    def _until(self, condition: Callable, what: str):
        try:
            return self.wait.until(condition)
        except TimeoutException:
            shown = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{what} is not on {self.driver.current_url}, {self.picture('failed.png')}:\n{shown}") from None

    def read(self, subject: str) -> str:
        """Open a message in the preview; its text. While it loads, Roundcube takes no command."""
        path = f"//table[@id='messagelist']//tr[.//*[contains(text(), '{subject}')]]"
        self._until(seen.element_to_be_clickable((By.XPATH, path)), subject).click()
        self._until(seen.frame_to_be_available_and_switch_to_it((By.ID, "messagecontframe")), "the preview")
        assert subject in self.find("#message-header .subject").text
        text = self.find("#messagebody").text
        self.driver.switch_to.default_content()
        self._until(lambda driver: not driver.execute_script("return rcmail.busy"), "an idle Roundcube")
        return text

    def try_to_log_in(self, address: str) -> None:
        self.driver.delete_all_cookies()
        self.open()
        self.find("#rcmloginuser").send_keys(address)
        self.find("#rcmloginpwd").send_keys(self.webmail.lab.passwords[address])
        self.click("#rcmloginsubmit")

    def log_in(self, address: str) -> None:
        self.try_to_log_in(address)
        self.find("#mailboxlist")

    def picture(self, name: str) -> Path:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(PICTURES / name))
        return PICTURES / name


@pytest.fixture
def person(webmail: Webmail, driver: webdriver.Chrome) -> Iterator[Person]:
    with webmail.lab.outside():
        yield Person(webmail, driver)


def received(lab: Lab, known: Known, to: str, subject: str | None = None, body: str = "Hello.\n") -> EmailMessage:
    mail = message(to=to, body=body)
    if subject:
        mail.replace_header("Subject", subject)
    known().send(mail, [to])
    arrives(lab, to, mail)
    return mail


def test_a_person_reads_a_message(lab: Lab, known: Known, person: Person) -> None:
    received(lab, known, "alice@example.org", "Minutes of the meeting on Monday")
    body = "Hello Alice,\n\nthe new mail server is up. Shall we have lunch on Thursday to celebrate?\n\nA friend\n"
    mail = received(lab, known, "alice@example.org", "Lunch on Thursday?", body)
    person.log_in("alice@example.org")
    assert "celebrate" in person.read(mail["Subject"])
    assert person.picture("inbox.png").stat().st_size > 10_000


def test_what_a_person_sends_arrives_under_the_persons_address(lab: Lab, person: Person) -> None:
    subject = "sent from the browser"
    person.log_in("alice@example.org")
    person.open("?_task=mail&_action=compose&_to=bob@example.org")
    person.find("#compose-subject").send_keys(subject)
    person.find("#composebody").send_keys("Written in Roundcube.")
    person.click("button.send")
    (mail,) = wait_for("the message", lambda: lab.stored("bob@example.org", subject), PATIENCE)
    assert mail["From"] == "alice@example.org"
    assert mail["Return-Path"] == "<alice@example.org>"
    assert "Written in Roundcube." in mail.get_content()
    wait_for("the copy in Sent", lambda: lab.stored("alice@example.org", subject, "Sent"), PATIENCE)


def test_the_junk_button_moves_a_message_and_the_filter_learns_from_it(lab: Lab, known: Known, person: Person) -> None:
    # Words of its own: what was learned before, in another test, leaves no new trace.
    body = "Seventeen tulips and one patient heron beside the canal were counted by our gardener before breakfast yesterday.\n" * 3
    mail = received(lab, known, "alice@example.org", body=body)
    person.log_in("alice@example.org")
    before = lessons(lab.pod)
    person.read(mail["Subject"])
    person.click("a.junk:not(.disabled)")
    wait_for("the move", lambda: lab.stored("alice@example.org", mail["Subject"], "Junk"), PATIENCE)
    wait_for("an inbox without it", lambda: not lab.stored("alice@example.org", mail["Subject"]), PATIENCE)
    wait_for("the filter's lesson", lambda: lessons(lab.pod) > before, PATIENCE)


def test_a_vacation_reply_goes_out_and_the_declared_script_still_runs_first(lab: Lab, known: Known, person: Person) -> None:
    person.log_in("bob@example.org")
    person.open("?_task=settings&_action=plugin.managesieve-vacation")
    person.find("#vacation_subject").send_keys("Away")
    person.find("#vacation_reason").send_keys("I am in the mountains.")
    person.driver.execute_script("document.querySelector('#vacation_status').value = 'on'")
    person.click("button.submit")
    home = lab.pod.host.path("/var/mail/example.org/bob/home")
    wait_for("the script", (home / ".dovecot.sieve").is_symlink, PATIENCE)

    received(lab, known, "bob@example.org")
    (reply,) = wait_for("the reply", lambda: [mail for mail in lab.relay.kept() if "mountains" in mail.as_string()], PATIENCE)
    assert reply["To"] == "friend@clients.example"
    assert reply["Subject"] == "Away"
    listed = message(to="bob@example.org", List_Id="<announce.lists.example>")
    known().send(listed, ["bob@example.org"])
    arrives(lab, "bob@example.org", listed, "Lists")


def test_a_certificate_with_another_name_ends_in_a_clear_message(lab: Lab, log: Log, webmail: Webmail, person: Person) -> None:
    log.expect(r"SSL_accept", r"TLS library problem", r"SIGHUP", r"alert", r"handshak")
    with another_certificate(lab):
        person.try_to_log_in("alice@example.org")
        said = person.find("#messagestack .alert").text
        assert "Connection to storage server failed" in said
        wait_for("why, in the log", lambda: "did not match expected" in webmail.log())
        assert not person.driver.find_elements(By.ID, "messagelist")
    person.log_in("alice@example.org")


@contextlib.contextmanager
def another_certificate(lab: Lab) -> Iterator[None]:
    lab.pod.mount_certificate(*lab.authority.issue("mail.another.example"))
    lab.pod.detect_changes()
    try:
        yield
    finally:
        lab.pod.mount_certificate(*lab.authority.issue(*lab.site.tls.names))
        lab.pod.detect_changes()
        wait_for("the right certificate", lambda: _greets(lab), 30)


def _greets(lab: Lab) -> bool:
    with contextlib.suppress(OSError):
        Client(lab, inside=True).imap().logout()
        return True
    return False


def test_what_the_image_writes_holds_no_secret(webmail: Webmail) -> None:
    found = webmail.host.run("grep", "-rlF", webmail.session_key, "/var/lib/roundcube", image.CONFIG_DIR, check=False)
    assert found.stdout == ""
    assert webmail.host.path(image.SESSION_KEY_FILE).read_text().strip() == webmail.session_key


def test_roundcube_sees_the_clients_address_and_no_forged_one(webmail: Webmail) -> None:
    """Plugins that count failed logins take this address."""
    host = webmail.settings.host
    command = ["curl", "-sk", "--noproxy", "*", "-H", "X-Forwarded-For: 203.0.113.9", "--resolve", f"{host}:443:{WEBMAIL}"]
    with webmail.lab.outside():
        shown = subprocess.run(
            [*command, "-w", "%{local_ip}", "-o", "/dev/null", f"https://{host}/"], capture_output=True, text=True, check=True
        )
    database = f"sqlite:{image.DATABASE_DIR}/{DATABASE_FILE}"
    listed = f"foreach ((new PDO('{database}'))->query('SELECT ip FROM session') as $row) echo $row[0], ' ';"
    seen = webmail.host.run("php", "-r", listed).stdout.split()
    assert shown.stdout in seen
    assert "203.0.113.9" not in seen


def test_a_webmail_without_its_database_is_not_ready(webmail: Webmail) -> None:
    """Roundcube's answer has status 200 all the same."""
    probe, file = webmail.container["readinessProbe"]["exec"]["command"], f"{image.DATABASE_DIR}/{DATABASE_FILE}"
    webmail.host.run(*probe)
    webmail.host.run("mv", file, f"{file}.away")
    webmail.host.run("cp", "/usr/bin/env", file)  # a damaged one; a new one Roundcube would make
    try:
        assert webmail.host.run(*probe, check=False).returncode == 1
    finally:
        webmail.host.run("mv", f"{file}.away", file)
    webmail.host.run(*probe)
