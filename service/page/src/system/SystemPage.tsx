export default function SystemPage(_: { ingestion?: string | null; id?: string | null }) { return null; }
