# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""One GET request, and what its answer holds.

An answer is a status, headers and a body. The body is bytes; the headers say which
encoding makes a text of them. Redirects have been followed by then, and what was
passed on the way is still there to be read. A status of 404 is an answer like any
other, until `raise_for_status` makes an exception of it.

A request without a time limit waits for ever for a site that says nothing, so none
of this chapter's is without.

Book: Chapter 5, example1.
Try:  --url https://httpbin.org

Output:
    GET /encoding/utf8
        status    200 OK
        came in   4.8 ms
        type      text/html; charset=utf-8
        length    14239
        bytes     14239
        text      7808 characters, as utf-8
    redirected    302 /redirect/2 -> 302 /relative-redirect/1 -> 200 /get
    not found     404 NOT FOUND, an HTTPError
    all that was announced has come: bytes as counted, text as encoded
"""

import argparse
from urllib.parse import urlsplit

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site


def fetch(url: str, timeout: float = TIMEOUT) -> requests.Response:
    """Return the whole answer to a GET of `url`, after redirects.

    Args:
        timeout: seconds that the site may take to accept the connection, and again
            from one piece of the answer to the next.

    Raises:
        requests.HTTPError: the status is 4xx or 5xx; its `response` is the answer.
        requests.RequestException: there is no answer, or only a part of it.
    """
    response = requests.get(url, timeout=timeout)
    response.raise_for_status()
    return response


def way_of(response: requests.Response) -> str:
    """Return the statuses and paths that led to an answer, its own at the end."""
    steps = [*response.history, response]
    return " -> ".join(f"{one.status_code} {urlsplit(one.url).path}" for one in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()

    with local_site.site_for(options.url) as site:
        print("GET /encoding/utf8")
        page = fetch(f"{site.url}/encoding/utf8")
        moved = fetch(f"{site.url}/redirect/2")
        try:
            fetch(f"{site.url}/status/404")
        except requests.HTTPError as error:
            missing = error.response
        else:
            raise SystemExit("the page that is not there was found")

    print(f"    status    {page.status_code} {page.reason}")
    print(f"    came in   {1000 * page.elapsed.total_seconds():.1f} ms")
    print(f"    type      {page.headers.get('Content-Type')}")
    print(f"    length    {page.headers.get('Content-Length')}")
    print(f"    bytes     {len(page.content)}")
    print(f"    text      {len(page.text)} characters, as {page.encoding}")
    print(f"redirected    {way_of(moved)}")
    print(f"not found     {missing.status_code} {missing.reason}, an HTTPError")
    if page.headers.get("Content-Length") != str(len(page.content)):
        raise SystemExit("the length announced is not the length of the body")
    if page.content.decode("utf-8") != page.text or len(page.text) == len(page.content):
        raise SystemExit("the text is not what the bytes say")
    print("all that was announced has come: bytes as counted, text as encoded")


if __name__ == "__main__":
    main()
