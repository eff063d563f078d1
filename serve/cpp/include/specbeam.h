/*
 * SpecBeam in a process of your own: ranked lists of items by a C ABI.
 *
 * What runs is the Python package `specbeam`, in an interpreter inside this process, so a list is the one that
 * `specbeam infer` writes for the same history. The interpreter is started by the first `specbeam_open`, unless the
 * process runs one already; it is never ended. docs/embedding.md tells how to build, link and deploy it.
 *
 * Threads. Every function may be called from any thread at any time, unless it says otherwise; requests of all threads
 * share the engine's calls. A thread may hold Python's GIL or not: while a function waits, it is released. A forked
 * child must not use what its parent opened, is told so, and ends by `exec` or `_exit`.
 *
 * Ownership. What a function returns by a pointer to a handle belongs to the caller, and has one function that frees
 * it, which takes NULL too. Texts that are returned belong to the handle that they were asked of, and live as long.
 * Texts and arrays that are passed are read before the function returns, and not kept. All text is UTF-8.
 *
 * Errors. A function that can fail returns a `specbeam_status`; what went wrong, what was expected and what to do
 * about it is then in `specbeam_last_error` of the same thread. Results are written only where it is SPECBEAM_OK;
 * handles are set to NULL otherwise. Beside the statuses that a function names, MEMORY and INTERNAL may come from any,
 * and INVALID or PYTHON in a forked child. No exception leaves this library, and it never ends the process.
 */
#ifndef SPECBEAM_H
#define SPECBEAM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SPECBEAM_API __attribute__((visibility("default")))
#else
#define SPECBEAM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header. The library's own is what `specbeam_version` says. */
#define SPECBEAM_VERSION "0.1.0"

/* Of the ABI: within one number, functions are added and structs grow at their ends, and nothing else changes. */
#define SPECBEAM_ABI 1

typedef enum specbeam_status {
  SPECBEAM_OK = 0,
  SPECBEAM_INVALID = 1,    /* what is asked cannot be: an argument, an option, a history without a known item */
  SPECBEAM_PYTHON = 2,     /* no interpreter with `specbeam` can be had */
  SPECBEAM_BUNDLE = 3,     /* the bundle, or the engine in it, cannot be opened */
  SPECBEAM_OVERLOADED = 4, /* as many requests wait as may: ask later, or elsewhere */
  SPECBEAM_TIMEOUT = 5,    /* not answered in time */
  SPECBEAM_CANCELLED = 6,  /* by `specbeam_cancel` */
  SPECBEAM_CLOSED = 7,     /* the engine closed before it was answered */
  SPECBEAM_FAILED = 8,     /* the engine gave no numbers for this request */
  SPECBEAM_MEMORY = 9,     /* there is not enough */
  SPECBEAM_INTERNAL = 10   /* a fault of this library or of the package; please report it */
} specbeam_status;

typedef struct specbeam_engine specbeam_engine;   /* a bundle that is open, and the thread that serves it */
typedef struct specbeam_filter specbeam_filter;   /* what may be recommended */
typedef struct specbeam_pending specbeam_pending; /* a request on its way */
typedef struct specbeam_result specbeam_result;   /* a ranked list */

/* What an engine is opened with. Fill it by `specbeam_options_default`, then change what is to differ. */
typedef struct specbeam_options {
  size_t size; /* of this struct, as the caller knows it */
  /* The environment that has `specbeam`: a virtual environment's folder, or the path of a `python` in it. NULL: what
   * the variable SPECBEAM_PYTHON names, else the one that this library was built with. Its version must be the one
   * that this library was built for. One process has one interpreter: later calls may only name the same. */
  const char* python;
  /* A JSON object of what the bundle is served with; NULL: {}. docs/embedding.md lists its keys, e.g.
   * {"engine": "onnxruntime-cpu-fp32", "threads": 4, "batch_size": 8, "policy": "in-flight", "mode": "strict"}. */
  const char* settings;
} specbeam_options;

/* What is asked besides a history. Fill it by `specbeam_ask_default`, then change what is to differ. */
typedef struct specbeam_ask {
  size_t size;                   /* of this struct, as the caller knows it */
  int64_t k;                     /* items of the list; default 20 */
  const char* user;              /* whose history it is: where sampling, the draw depends on it. NULL: nobody's */
  const specbeam_filter* filter; /* of the same engine; NULL: everything may be recommended */
  int32_t exclude_history;       /* not 0: nothing that the history holds */
  int32_t priority;              /* the largest is served first; default 0 */
  double timeout_ms;             /* after which nobody wants it; 0, the default: never */
  /* A JSON object of how this list is verified, e.g. {"mode": "sampled", "seed": 7}; NULL: as the engine was opened. */
  const char* verification;
} specbeam_ask;

/* The library's version, as text. Never fails, and starts no interpreter. */
SPECBEAM_API const char* specbeam_version(void);

/* The library's SPECBEAM_ABI: must be the header's. */
SPECBEAM_API int specbeam_abi(void);

/* What the last failed call of this thread said; "" before the first. Owned by the thread, until its next call of any
 * function of this library that returns a status, or its end. */
SPECBEAM_API const char* specbeam_last_error(void);

/* The defaults, in a struct of so many bytes; the two functions below know how many. Never fail. */
SPECBEAM_API void specbeam_options_init(specbeam_options* options, size_t size);
SPECBEAM_API void specbeam_ask_init(specbeam_ask* ask, size_t size);

static inline void specbeam_options_default(specbeam_options* options) {
  specbeam_options_init(options, sizeof *options);
}
static inline void specbeam_ask_default(specbeam_ask* ask) { specbeam_ask_init(ask, sizeof *ask); }

/* Open a bundle that `specbeam build-engine` has built, warm; takes as long as its engines take to load.
 * options: NULL for the defaults. Free *engine with `specbeam_close`.
 * INVALID, PYTHON, BUNDLE, MEMORY. */
SPECBEAM_API specbeam_status specbeam_open(const char* path, const specbeam_options* options,
                                           specbeam_engine** engine);

/* Take no more requests, answer those that are on their way, and free the engine. Blocks until they are answered. No
 * other function may be called with it from now on; pending requests, filters and results stay valid. */
SPECBEAM_API void specbeam_close(specbeam_engine* engine);

/* Prepare what may be recommended: of `allow` (NULL: all items), without `deny` (NULL: none). Ids that the catalog
 * lacks say nothing. A filter is prepared once and used by many requests, of any thread, and may be freed while
 * requests with it are on their way. Free with `specbeam_filter_free`.
 * INVALID: an id is NULL, or not UTF-8. */
SPECBEAM_API specbeam_status specbeam_filter_create(specbeam_engine* engine, const char* const* allow, size_t allowed,
                                                    const char* const* deny, size_t denied, specbeam_filter** filter);
SPECBEAM_API void specbeam_filter_free(specbeam_filter* filter);

/* One list, blocking. items: `count` ids, oldest first; those that the catalog lacks are left out and counted. ask:
 * NULL for the defaults. Free *result with `specbeam_result_free`.
 * INVALID, OVERLOADED, TIMEOUT, CLOSED, FAILED. */
SPECBEAM_API specbeam_status specbeam_recommend(specbeam_engine* engine, const char* const* items, size_t count,
                                                const specbeam_ask* ask, specbeam_result** result);

/* Lists of prompts that the caller encodes, blocking. tokens [rows, columns]: token ids, of each row the first
 * `lengths` [rows]. items [rows, k]: the items' places in the catalog, -1 behind a list's end; scores [rows, k]: their
 * log-probabilities, -inf there. Of ask, k, priority and timeout_ms; the others must be their defaults.
 * As `specbeam_recommend`; the first row that fails says how. */
SPECBEAM_API specbeam_status specbeam_recommend_tokens(specbeam_engine* engine, const int64_t* tokens, size_t rows,
                                                       size_t columns, const int64_t* lengths, const specbeam_ask* ask,
                                                       int64_t* items, float* scores);

/* Items of the catalog: how many, and the id at a place (NULL: there is none). The id lives as long as the engine. */
SPECBEAM_API size_t specbeam_catalog_size(const specbeam_engine* engine);
SPECBEAM_API const char* specbeam_catalog_item(const specbeam_engine* engine, int64_t place);

/* Ask for a list and return at once. As `specbeam_recommend`; what is only known later, `specbeam_wait` says. Free
 * *pending with `specbeam_pending_free`. INVALID, OVERLOADED, CLOSED. */
SPECBEAM_API specbeam_status specbeam_submit(specbeam_engine* engine, const char* const* items, size_t count,
                                             const specbeam_ask* ask, specbeam_pending** pending);

/* Wait for the answer, `timeout_ms` at most; less than 0: as long as it takes. May be called again, and by several
 * threads: each gets a result of its own to free.
 * TIMEOUT: not answered yet, or its own deadline has passed (`specbeam_done` tells which).
 * CANCELLED, CLOSED, FAILED. */
SPECBEAM_API specbeam_status specbeam_wait(specbeam_pending* pending, double timeout_ms, specbeam_result** result);

/* Whether it has ended: answered, failed or cancelled. Never blocks. */
SPECBEAM_API int specbeam_done(const specbeam_pending* pending);

/* Have `call` called with `data` once it has ended: by the thread that serves, by the one that cancels it, or, where it
 * has ended already, by this one, before this function returns. It holds no lock of this library then, must return
 * soon, must not wait for other requests, and no exception may leave it. One call a request: INVALID for a second. */
SPECBEAM_API specbeam_status specbeam_notify(specbeam_pending* pending, void (*call)(void* data), void* data);

/* Take the request out before its next round; `specbeam_wait` then says CANCELLED. Nothing happens if it has ended. */
SPECBEAM_API void specbeam_cancel(specbeam_pending* pending);

/* Free the handle, once no thread waits for it; a request that has not ended is cancelled. */
SPECBEAM_API void specbeam_pending_free(specbeam_pending* pending);

/* A list: its length, and of the item at each rank (0: the best) its id, its title (NULL: it has none), its
 * log-probability, its place in the catalog, and the tokens of its identifier, as text. Out of range: NULL, NaN, -1
 * and 0. Never blocks. */
SPECBEAM_API size_t specbeam_result_size(const specbeam_result* result);
SPECBEAM_API const char* specbeam_result_item(const specbeam_result* result, size_t rank);
SPECBEAM_API const char* specbeam_result_title(const specbeam_result* result, size_t rank);
SPECBEAM_API double specbeam_result_score(const specbeam_result* result, size_t rank);
SPECBEAM_API int64_t specbeam_result_place(const specbeam_result* result, size_t rank);
SPECBEAM_API size_t specbeam_result_tokens(const specbeam_result* result, size_t rank);
SPECBEAM_API const char* specbeam_result_token(const specbeam_result* result, size_t rank, size_t token);

/* How it came about: items of the history that the catalog lacks, calls of the target, milliseconds in the queue and
 * from submission to answer. */
SPECBEAM_API int64_t specbeam_result_unknown_items(const specbeam_result* result);
SPECBEAM_API int64_t specbeam_result_target_calls(const specbeam_result* result);
SPECBEAM_API double specbeam_result_waited_ms(const specbeam_result* result);
SPECBEAM_API double specbeam_result_total_ms(const specbeam_result* result);
SPECBEAM_API void specbeam_result_free(specbeam_result* result);

#ifdef __cplusplus
}
#endif
#endif
