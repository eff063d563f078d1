"""What is counted of serving, under the same names wherever it is shown."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # bounds of histograms
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SUMS = {  # of `DecodeStats`
    "target_calls": "Calls of the target, summed over the requests that shared them.",
    "draft_calls": "Calls of the draft, summed over the requests that shared them.",
    "nodes_evaluated": "Trie nodes that the target evaluated.",
    "nodes_drafted": "Trie nodes that a draft or a pool guessed.",
    "target_seconds": "Inside the target's engine.",
    "draft_seconds": "Inside the draft's engine.",
}
NEEDED = "Nodes that the search needed below the first."
FOUND = "Of these, nodes that were drafted ahead of need."
ENDED = "Requests for a list, by how they ended."
REQUEST_SECONDS = "From a request's arrival to its list."
QUEUE_SECONDS = "In the queue."
BATCH = "Requests that share a call."
