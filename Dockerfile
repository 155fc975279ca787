# The relay as an image:
#   docker build -t blindrelay .
#   docker run --read-only --cap-drop ALL -v blindrelay:/data -p 8090:8090 blindrelay
#
# /data holds the relay's keys, which are its identity: every client pins them. Outside of a volume they would die with the
# container, so the relay refuses to mint keys in a container whose data directory is no volume. Name the volume, as above:
# with the nameless one that VOLUME makes by itself, which is another one with every container, it refuses too. A directory of the
# host that is mounted instead must belong to uid 10001.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip, which nothing that runs later needs: this stage's own pip installs into it.
RUN python -m venv --without-pip /venv
# The dependencies before the source: this layer is made again only when one of these two files changes. Wheels only: the
# image has no compiler, and a missing wheel should say so.
COPY pyproject.toml constraints.txt ./
# EXTRAS names further ones, such as `callout` or `notifier apns`, with blanks between them. http-ece, which comes with
# `notifier`, has no wheel: it is plain Python, and the only one that is built here.
ARG EXTRAS=
RUN python -c "import sys, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(line for extra in sys.argv[1:] for line in p['optional-dependencies'][extra]), sep='\n')" $EXTRAS > requirements.txt \
 && pip --python /venv/bin/python install --no-compile --only-binary :all: --no-binary http-ece --constraint constraints.txt --requirement requirements.txt \
 && pip install --constraint constraints.txt setuptools
COPY README.md LICENSE ./
COPY keys/ keys/
COPY wire/ wire/
COPY relay/ relay/
COPY peers/ peers/
# Bytecode that is never checked against its source's time: the image is never edited.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /venv/bin/python install --no-deps --no-index --no-compile dist/*.whl \
 && python -m compileall -q --invalidation-mode unchecked-hash /venv/lib

FROM python:3.13-slim
# PYTHONSAFEPATH: nothing is imported from the working directory.
ENV PATH=/venv/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 RELAY_DATA_DIR=/data RELAY_HOST=0.0.0.0
COPY --from=build /venv /venv
# The base image ships the standard library without bytecode; one import writes what the relay uses of it, while the root
# file system can still be written, and shows that the image holds all that the relay imports.
RUN python -c "import relay.__main__, relay.healthcheck" \
 && groupadd --gid 10001 relay \
 && useradd --uid 10001 --gid relay --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin relay \
 && install -d -o relay -g relay -m 0700 /data
ENV PYTHONDONTWRITEBYTECODE=1
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "relay.healthcheck"]
ENTRYPOINT ["python", "-m", "relay"]
