FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY schemas schemas
COPY stream stream
RUN pip install --no-cache-dir --prefix=/installed .

FROM python:3.12-slim
COPY --from=build /installed /usr/local
RUN useradd --uid 10001 --create-home liftstream \
    && install -d -o liftstream -g liftstream /var/lib/liftstream
# Checkpoints must outlive the container; compiled kernels may, then a restart takes seconds.
ENV LIFTSTREAM_CHECKPOINTS=file:///var/lib/liftstream/checkpoints \
    NUMBA_CACHE_DIR=/var/lib/liftstream/kernels \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/liftstream
WORKDIR /home/liftstream
USER liftstream
EXPOSE 6066
ENTRYPOINT ["liftstream"]
CMD ["worker"]
