export default function CasesPage(_: { ingestion?: string | null; id?: string | null }) { return null; }
