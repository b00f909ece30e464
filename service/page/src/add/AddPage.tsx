export default function AddPage(_: { ingestion?: string | null; id?: string | null }) { return null; }
