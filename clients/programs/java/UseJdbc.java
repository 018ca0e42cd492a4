import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.UUID;

/** JDBC. It sends the types of what is set: setLong, setObject(UUID) and setString are what they say. */
class UseJdbc {
    static final String EMIT = "SELECT sea_mq.emit('order', ?, 'OrderCreated', ?)";

    static void emit(Connection db, long n) throws Exception {
        try (PreparedStatement emit = db.prepareStatement(EMIT)) {
            emit.setLong(1, n);
            emit.setString(2, "{\"n\": " + n + "}");
            emit.execute();
        }
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            // docs:
            db.setAutoCommit(false);
            try (PreparedStatement order = db.prepareStatement("INSERT INTO orders (id) VALUES (?)");
                    PreparedStatement emit = db.prepareStatement("SELECT sea_mq.emit('order', ?, 'OrderCreated', ?)")) {
                order.setLong(1, 1);
                order.executeUpdate();
                emit.setLong(1, 1);
                emit.setString(2, "{\"n\": 1}");
                emit.execute();
            }
            db.commit();
            // :docs

            db.createStatement().execute("INSERT INTO orders (id) VALUES (2)");
            emit(db, 2);
            db.rollback();

            try (PreparedStatement emit = db.prepareStatement(EMIT)) {
                emit.setString(1, "3");
                emit.setString(2, "{\"n\": 3}");
                emit.execute();
            }
            Savepoint savepoint = db.setSavepoint();
            emit(db, 4);
            db.rollback(savepoint);
            db.commit();

            // docs:
            String insert = "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)"
                + " VALUES ('order', ?, 'OrderCreated', ?::jsonb)";
            // Not Statement.RETURN_GENERATED_KEYS, which asks for all columns.
            try (PreparedStatement event = db.prepareStatement(insert, new String[] {"id"})) {
                event.setString(1, "5");
                event.setString(2, "{\"n\": 5}");
                event.executeUpdate();
                ResultSet keys = event.getGeneratedKeys();
                keys.next();
                UUID id = keys.getObject(1, UUID.class);
            // :docs
                if (id.version() != 7) throw new AssertionError(id);
            }
            try (Statement many = db.createStatement()) {
                many.execute("SELECT sea_mq.emit_array(jsonb_agg(jsonb_build_object('aggregate_type', 'order', 'aggregate_id', n,"
                    + " 'event_type', 'OrderCreated', 'payload', jsonb_build_object('n', n)) ORDER BY n)) FROM generate_series(6, 7) n");
            }
            db.commit();

            for (int left = 5; left > 0;) {
                // docs:
                db.setAutoCommit(true);
                try (ResultSet messages = db.createStatement().executeQuery(
                        "SELECT id, payload ->> 'n' FROM sea_mq.receive('app__pull', wait => '5 s')");
                        PreparedStatement parcel = db.prepareStatement("INSERT INTO parcels (order_id) VALUES (?)");
                        PreparedStatement complete = db.prepareStatement("SELECT sea_mq.complete(?)")) {
                    db.setAutoCommit(false);
                    while (messages.next()) {
                        parcel.setString(1, messages.getString(2));
                        parcel.executeUpdate();
                        complete.setLong(1, messages.getLong(1));
                        complete.execute();
                        db.commit();
                // :docs
                        left--;
                    }
                }
            }
        }
    }
}
