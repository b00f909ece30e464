export default function AuditPage(_: { ingestion?: string | null; id?: string | null }) { return null; }
