"""Pure: sequencer, quorum, takeover, routing, placement. Events step in, effects come out."""
